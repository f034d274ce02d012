"""Reads dataclasses from nested dicts, such as those of JSON and ml_collections, and checks every key and type."""

import dataclasses
import difflib
import math
from typing import TYPE_CHECKING, Any, TypeVar

from igpt_jax.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def read_dataclass(cls: type[T], values: dict[str, Any], prefix: str = "") -> T:
    """Creates a dataclass from a dict with the names of its fields as keys; missing keys take their defaults.

    Args:
      cls: the dataclass.  Its fields are dataclasses, tuples of int or of float, int, float, str or bool.
      values: the values by key; a field that is a dataclass takes a dict.
      prefix: put before the keys in error messages.

    Raises:
      InputError: a key is unknown, a value has another type, or the dataclass itself refuses the values.
    """
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise InputError(
                f"config has no key {prefix}{key}" + (f"; did you mean {prefix}{near[0]}?" if near else "")
            )
    return cls(**{key: _read(fields[key], value, prefix + key) for key, value in values.items()})


def _read(kind: Any, value: Any, name: str) -> Any:
    def check(condition: bool, complaint: str) -> None:
        if not condition:
            raise InputError(f"{name}={value!r} {complaint}")

    actual = f"is a {type(value).__name__}"
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        check(type(value) is dict, f"{actual}; expected a section of keys")
        return read_dataclass(kind, value, prefix=f"{name}.")
    if kind in (tuple[int, ...], tuple[float, ...]):
        check(type(value) in (list, tuple), f"{actual}; expected a tuple")
        element = kind.__args__[0]
        return tuple(_read(element, item, name) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    check(type(value) is kind, f"{actual}; expected {kind.__name__}")
    check(kind is not float or math.isfinite(value), "must be a finite number")
    check(kind is not int or abs(value) < 2**31, "must lie between -2147483647 and 2147483647")
    check(kind is not str or "\0" not in value, "contains a null character, which no path can contain")
    return value
