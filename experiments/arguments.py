"""Reads the arguments of config files, `FILE.py:name=value,name=value`, and of the experiments' command lines."""

import argparse
import pathlib
from typing import Any

from igpt_jax.errors import InputError
from igpt_jax.storage import is_address

_KINDS = {int: "a whole number", float: "a number", str: "a text"}


def local_directory(text: str) -> pathlib.Path:
    """Reads a directory of this machine, for argparse; an address such as gs://bucket/runs is refused."""
    if is_address(text):
        raise argparse.ArgumentTypeError(f"{text} is no directory of this machine; experiments keep their runs on one")
    return pathlib.Path(text)


def read_arguments(text: str, **defaults: str | int | float | tuple[str, ...]) -> dict[str, Any]:
    """Reads `name=value,name=value`.

    Args:
      text: the arguments; those that are missing have their default.
      **defaults: for each argument, its default, which also says its type; or a tuple of the texts to choose from, of
        which the first is the default.

    Returns:
      The value of every argument.

    Raises:
      InputError: an argument is unknown, or not of its type; the message names it.

    >>> read_arguments("size=l,steps=7", size=("s", "l"), steps=1, objective=("ar", "bert"))
    {'size': 'l', 'steps': 7, 'objective': 'ar'}
    """
    values: dict[str, Any] = {
        name: default[0] if isinstance(default, tuple) else default for name, default in defaults.items()
    }
    for argument in filter(None, text.split(",")):
        name, _, value = argument.partition("=")
        if name not in defaults or not value:
            shown = ",".join(f"{known}={default}" for known, default in values.items() if default != "")
            raise InputError(f"{argument!r} is not an argument; give {', '.join(defaults)}, such as {shown}")
        if isinstance(choices := defaults[name], tuple):
            if value not in choices:
                raise InputError(f"{argument} is not one of {', '.join(choices)}")
            values[name] = value
            continue
        kind = type(choices)
        try:
            values[name] = kind(value)
        except ValueError:
            raise InputError(f"{argument}, but {name} is {_KINDS[kind]}, such as {choices}") from None
    return values
