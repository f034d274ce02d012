"""Explains a command line that cannot work: what was wrong, and what was probably meant."""

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from absl import flags

from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError


def check_command(name: str, commands: Iterable[str]) -> None:
    """Raises InputError if there is no command of that name, and suggests a similar one."""
    if name not in commands:
        meant = _meant(name, commands) or f"choose one of {', '.join(commands)}"
        raise InputError(f"there is no command {name!r}; {meant}")


def check_config_file(argv: list[str]) -> None:
    """Raises InputError if --config names a file that does not exist, and suggests a similar name."""
    for argument in argv:
        flag, _, value = argument.partition("=")
        path = pathlib.Path(value.partition(":")[0])
        if flag.lstrip("-") == "config" and value and not path.is_file():
            near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.py")], 1, 0.5)
            meant = f"did you mean {path.parent / near[0]}?" if near else "check the path"
            raise InputError(f"there is no config file {path}; {meant}")


def explain(error: Exception, options: flags.FlagValues) -> str:
    """Explains what absl or ml_collections raised while they read the flags, in one line."""
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        meant = f"did you mean --config.{name}?" if name in _config_keys() else _meant(name, list(options), "--")
        return f"there is no flag --{name}; {meant or 'add --help to see all flags'}"
    # Removes the lines of a traceback, and the name of our own exception.
    text = re.split(r"\n(?:igpt_jax\.errors\.InputError: |(?=[\w.]+: ))", str(error).strip())[-1]
    if wrong := re.fullmatch(r"flag (--\S+?)=(.*): (invalid literal for int\(\)|could not convert string).*", text):
        flag, value, kind = wrong.groups()
        expected = "a whole number, such as 100" if kind.startswith("invalid") else "a number, such as 0.001"
        return f"{flag}={value} is not {expected}"
    if re.search(r"get_config\(\) takes \w+ positional arguments? but 1 was given", text):
        return "this config file takes no argument; remove the colon and what follows it from --config"
    return text


def unknown_key(argv: list[str], config_class: Any = RunConfig) -> str | None:
    """Returns a message about the first --config.KEY that no config has, with a similar key; None if all are known."""
    known = _config_keys(config_class)
    for argument in argv:
        key = argument.lstrip("-").partition("=")[0]
        if key.startswith("config.") and (key := key.removeprefix("config.")) not in known:
            section, _, name = key.rpartition(".")
            siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
            near = [siblings[other] for other in difflib.get_close_matches(name, siblings, 1)]
            near += [other for other in known if other.rpartition(".")[2] == name]
            meant = f"did you mean {near[0]}?" if near else f"there is {', '.join(siblings.values() or known)}"
            return f"the config has no key {key}; {meant}"
    return None


def _config_keys(config_class: Any = RunConfig) -> list[str]:
    return [key.removeprefix(".") for key in _keys(dataclasses.asdict(config_class()))]


def _keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield from _keys(value, f"{prefix}.{name}") if isinstance(value, dict) else [f"{prefix}.{name}"]


def _meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {prefix}{near[0]}?" if near else ""
