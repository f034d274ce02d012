"""Dataclasses from nested dicts, as JSON and ml_collections hold them, with every key and type checked."""

import dataclasses
import difflib
import math
from typing import TypeVar

from igpt_jax.errors import InputError

T = TypeVar("T")


def read_dataclass(cls: type[T], values: dict, prefix: str = "") -> T:
    """Fills a dataclass from a dict of the same keys; a key left out has its default.

    Fields are dataclasses, tuples of int or float, int, float, str or bool.  prefix: of the keys in messages.

    Raises:
      InputError: an unknown key, or a value of another type, which is named; what the dataclass itself raises.
    """
    fields = {field.name: field.type for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise InputError(
                f"config has no key {prefix}{key}" + (f"; did you mean {prefix}{near[0]}?" if near else "")
            )
    return cls(**{key: _read(fields[key], value, prefix + key) for key, value in values.items()})


def _read(kind, value, name):
    def check(condition, complaint):
        if not condition:
            raise InputError(f"{name}={value!r} {complaint}")

    found = f"is a {type(value).__name__}"
    if dataclasses.is_dataclass(kind):
        check(type(value) is dict, f"{found}; expected a section of keys")
        return read_dataclass(kind, value, prefix=f"{name}.")
    if kind in (tuple[int, ...], tuple[float, ...]):
        check(type(value) in (list, tuple), f"{found}; expected a tuple")
        element = kind.__args__[0]
        return tuple(_read(element, item, name) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    check(type(value) is kind, f"{found}; expected {kind.__name__}")
    check(kind is not float or math.isfinite(value), "must be a finite number")
    check(kind is not int or abs(value) < 2**31, "must lie between -2147483647 and 2147483647")
    check(kind is not str or "\0" not in value, "has a null character, which no path may have")
    return value
