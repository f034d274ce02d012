"""The command line: `python -m igpt_jax COMMAND --flag=value ...`.

Flags are those of absl and ml_collections.  The code of a command, and JAX with it, is imported only after the flags
have been checked.  Bad input, and errors of the operating system such as a full disk, end a command here with one line
on stderr and exit status 2.
"""

import contextlib
import importlib
import itertools
import os
import pathlib
import sys
import traceback
from collections.abc import Container
from typing import Any, NoReturn

from absl import flags, logging

from igpt_jax.config import RunConfig
from igpt_jax.cores import two_devices
from igpt_jax.environment import check_jax, import_command, quiet_libtpu
from igpt_jax.errors import InputError, Preempted, describe_os_error, hide_late_writes
from igpt_jax.flags import command_flags
from igpt_jax.memory import keep_freed_memory
from igpt_jax.mistakes import check_command, check_config_file, explain, unknown_key
from igpt_jax.storage import as_path, describe_bucket_error

COMMANDS = {
    "palette": "fit a palette to the training images of a source, and show it",
    "codes": "train a codec, which turns big pictures into few codes, to stand in place of a palette",
    "tokens": "encode every split of a source as tokens, once for many runs",
    "train": "pretrain or fine-tune, evaluate, and write a report; the same command resumes a run",
    "evaluate": "measure the result of a run: held-out likelihood, accuracy, linear probes",
    "sample": "sample new images",
    "complete": "complete images: below given rows (ar models), or where a mask hides pixels (bert models)",
    "demo": "open a page in the browser that completes pictures",
    "score": "measure how likely images are, and which pixels are surprising",
    "quality": "compare samples with held-out images: copies, colors, labels, feature distances",
    "plan": "compile for a TPU slice that this machine does not have: does it fit, and how fast can it be",
    "convert": "convert weights between the formats of Hugging Face, OpenAI and this package",
}

MEASURING = ("evaluate", "quality")  # commands that take the config from the workdir

USAGE = """Image GPT in JAX.

usage: python -m igpt_jax COMMAND [--flag=value ...]

commands:
{commands}

`python -m igpt_jax COMMAND --help` lists the flags of a command.
Every key of a config can be set on the command line, such as --config.optimizer.learning_rate=0.003
"""


def main(argv: list[str]) -> int:
    """Runs one command.

    Args:
      argv: the program's name, the command and its flags, as in `sys.argv`.

    Returns:
      The exit status: 0 for success or if a signal stopped the run, 2 for bad input or an error of the system.
    """
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        lines = [f"  {name:<10}{purpose}" for name, purpose in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)), end="")
        return 0 if len(argv) > 1 else 2
    name, argv = argv[1], [argv[0], *argv[2:]]
    try:
        check_command(name, COMMANDS)
        check_config_file(argv)
        options = command_flags(name, argv, _saved_config(argv) if name in MEASURING else None)
        if {"-h", "--help"} & set(argv):
            print(f"usage: python -m igpt_jax {name} [--flag=value ...]\n\n{COMMANDS[name]}\n\n{_describe(options)}")
            return 0
        config, workdir = _parse(name, options, argv)
        if name in ("train", "plan", "codes") and config is None:
            example = "codes" if name == "codes" else "digits"
            raise InputError(f"--config=FILE is missing; {name} needs one, such as experiments/{example}.py")
        logging.set_verbosity(logging.FATAL)  # Orbax also raises the errors that it logs at length
        command = import_command(name)
        with contextlib.ExitStack() as stack:
            if "distributed" in options:
                processes = importlib.import_module("igpt_jax.parallel.processes")
                stack.enter_context(processes.joined(options.distributed))
            check_jax()
            if "config" not in options:
                command(options)
            elif name == "plan":
                command(config, options)
            else:
                command(config, workdir, options)
    except Preempted as notice:
        print(f"igpt_jax {name}: {notice}", file=sys.stderr)
    except (InputError, OSError) as error:
        message = describe_os_error(error) if isinstance(error, OSError) else str(error)
        print(f"igpt_jax {name}: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except Exception as error:
        if not (described := describe_bucket_error(error) or _describe_exhaustion(error)):
            raise
        print(f"igpt_jax {name}: {described}", file=sys.stderr)
        return 2
    return 0


def _describe_exhaustion(error: Exception) -> str | None:
    text = " ".join(str(error).split())
    if not (isinstance(error, RuntimeError) and text.startswith("RESOURCE_EXHAUSTED")):
        return None
    return f"a device's memory is too small ({text[:200]}); use a smaller batch size or more devices"


def _describe(options: flags.FlagValues) -> str:
    lines = []
    for name in options:
        if name not in ("flagfile", "undefok"):  # absl's own
            default = "" if options[name].default is None else f" [{options[name].default}]"
            lines.append(f"  --{name:<15} {options[name].help}{default}")
    return "\n".join(lines)


def _parse(name: str, options: flags.FlagValues, argv: list[str]) -> tuple[Any, pathlib.Path | None]:
    """Parses the flags and runs the config file.

    Returns:
      The config, a `RunConfig` or the one of `codes`, and the workdir; each None if the command or the flags have none.

    Raises:
      InputError: a flag is wrong, or the config file fails in any way.
    """
    try:
        rest = options(argv)[1:]
        config = options["config"].value if "config" in options else None
        config = config and config.to_dict()
    except (flags.Error, OSError, TypeError, ValueError) as error:
        raise InputError(explain(error, options)) from error
    except Exception as error:  # a config file is a program and may raise anything
        if isinstance(error, AttributeError | KeyError) and (message := unknown_key(argv, _config_class(name))):
            raise InputError(message) from error
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
        remedy = "correct it"
        if isinstance(error, ModuleNotFoundError):
            remedy = f"start the command in the directory that holds {error.name}"
        raise InputError(f"the config file does not run; {remedy}: {type(error).__name__}: {error}{place}") from error
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag; write --name=value")
    config = config and _config_class(name, config).from_dict(config)
    if "workdir" not in options or (options["workdir"].value is None and {"weights", "samples"} & set(options)):
        return config, None
    if not options.workdir:
        raise InputError("--workdir=DIR is missing; name the directory of the run")
    return config, as_path(options.workdir)


def _config_class(name: str, config: Container[str] = ()) -> Any:
    """The class of a command's configs; `plan` takes those of `train` and those of `codes`, which have a network."""
    codec = name == "codes" or (name == "plan" and "network" in config)
    return importlib.import_module("igpt_jax.codes.config").CodecConfig if codec else RunConfig


def _saved_config(argv: list[str]) -> RunConfig | None:
    """The config of the workdir, if --config.KEY flags override it and there is no config file."""
    names = [argument.lstrip("-").partition("=")[0] for argument in argv if argument.startswith("-")]
    workdirs = [argument.partition("=")[2] for argument in argv if argument.lstrip("-").startswith("workdir=")]
    workdirs += [value for flag, value in itertools.pairwise(argv) if flag in ("--workdir", "-workdir")]
    if "config" in names or not any(name.startswith("config.") for name in names) or not workdirs:
        return None
    workdir_lock = importlib.import_module("igpt_jax.train.workdir_lock")
    return workdir_lock.read_config(as_path(workdirs[-1]))[0]


def _leave(status: int) -> NoReturn:
    """Ends this process, together with the processes that it has joined."""
    if processes := sys.modules.get("igpt_jax.parallel.processes"):
        processes.leave(status)
    sys.exit(status)


def run() -> NoReturn:
    """Runs the command line of this process and ends it: `igpt_jax COMMAND` and `python -m igpt_jax COMMAND`.

    Config files may import modules of the current directory, such as `experiments`.  `python -m` has it on the path.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    keep_freed_memory()
    quiet_libtpu()
    hide_late_writes()
    if sys.argv[1:2] in (["sample"], ["complete"], ["quality"]):
        two_devices()
    _leave(main(sys.argv))


if __name__ == "__main__":
    run()
