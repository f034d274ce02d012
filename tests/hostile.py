"""Hostile values where people say what they want: configs as data and as Python files, and the flags of commands."""

import contextlib
import dataclasses
import io
import pathlib
import random
from collections.abc import Callable

from igpt_jax import __main__ as command_line
from igpt_jax.commands.run import Run
from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError
from igpt_jax.flags import command_flags

VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**31 - 1,
    2**70,
    1e-300,
    0.5,
    1e300,
    float("nan"),
    "",
    "x",
    "../../x",
    "\0",
    [],
    [[]],
    {},
    {"": None},
)
TEXTS = (
    "",
    "-1",
    "0",
    "0.5",
    "1",
    str(2**70),
    "1e300",
    "1e999",
    "nan",
    "x",
    "../../x",
    "$(touch x)",
    "; touch x",
    "é" * 999,
)
EXPRESSIONS = ("(1,", "(1, 'a')", "None", "[[]]", "{'': None}", "True")  # which ml_collections evaluates as literals
PROGRAMS = (
    "",
    "\0",
    "def get_config(:",
    "import nothing_like_this",
    "get_config = 3",
    "1 / 0",
    "def get_config(x): ...",
)

Attempt = Callable[[random.Random, pathlib.Path], object]


def attempts(config: RunConfig, directory: pathlib.Path) -> dict[str, Attempt]:
    """Calls that draw a hostile value and use it in a directory of their own; they raise InputError, or it works.

    config: of a run that works, whose files do not lie in the working directory.
    directory: has "run", a workdir of such a model, "images", a folder, and "palette/palette.npy".
    """
    directory = directory.absolute()
    return {
        "config": lambda draw, case: _open(_changed(dataclasses.asdict(config), draw), case),
        "config file": lambda draw, case: _open(_parse(draw, case, _program(config, draw), ()), case),
        "--config.KEY": lambda draw, case: _open(_parse(draw, case, _plain(config), [_setting(config, draw)]), case),
        "flags": lambda draw, case: _command(draw, case, directory),
    }


def _open(values, case):
    with contextlib.chdir(case):  # where relative paths among the values lead
        return Run.open(RunConfig.from_dict(values), case / "workdir").config


def _changed(values, draw):
    node, key = draw.choice(list(_places(values)))
    node[key] = draw.choice(VALUES)
    return values


def _places(tree):
    for key, value in tree.items():
        yield tree, key
        if isinstance(value, dict):
            yield from _places(value)


def _names(tree, prefix=""):
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")


def _setting(config, draw):
    return f"--config.{draw.choice(list(_names(dataclasses.asdict(config))))}={draw.choice(TEXTS + EXPRESSIONS)}"


def _plain(config, line="pass"):
    """A config file that gives the config, after one more line."""
    values = dataclasses.asdict(config)
    del values["model"]["objective"]  # follows objective.name
    return (
        f"from igpt_jax.config import default_config\nnan = float('nan')\ndef get_config():\n"
        f"    config = default_config()\n    config.update({values!r})\n    config.unlock()\n    {line}\n"
        f"    return config\n"
    )


def _program(config, draw):
    if draw.random() < 0.3:
        return draw.choice(PROGRAMS)
    return _plain(config, f"config.{draw.choice(list(_names(dataclasses.asdict(config))))} = {draw.choice(VALUES)!r}")


def _parse(draw, case, program, settings):
    path = case / f"config{draw.getrandbits(64)}.py"
    path.write_text(program)
    argv = ["igpt_jax", f"--config={path}", f"--workdir={case / 'workdir'}", *settings]
    try:
        parsed, _ = command_line._parse("train", command_flags("train", argv), argv)
    finally:
        path.unlink()
    return dataclasses.asdict(parsed)


def _command(draw, case, directory):
    """One command with a hostile value for some flag, from the words on the command line to the exit status."""
    run, images, palette = (directory / name for name in ("run", "images", "palette/palette.npy"))
    commands = {
        "sample": [f"--workdir={run}", "--n=1", "--out=out"],
        "complete": [f"--workdir={run}", f"--images={images}", "--n=1", "--out=out"],
        "score": [f"--workdir={run}", f"--images={images}", "--out=out"],
        "palette": [f"--source=folder:{images}", "--size=9", "--resolution=4", "--out=out.npy"],
        "tokens": [f"--source=folder:{images}", f"--palette={palette}", "--resolution=4", "--out=out"],
        "convert": [f"--input={run}", "--output=out", "--to=huggingface"],
    }
    name = draw.choice(list(commands))
    argv = ["igpt_jax", name, *commands[name]]
    flag = draw.choice([flag for flag in command_flags(name, argv) if flag != "distributed"])
    error = io.StringIO()
    with contextlib.chdir(case), contextlib.redirect_stderr(error):
        status = command_line.main([*argv, f"--{flag}={draw.choice(TEXTS)}"])
    if status:
        assert status == 2
        assert error.getvalue().count("\n") == 1, error.getvalue()
        raise InputError(error.getvalue().strip())
    return name
