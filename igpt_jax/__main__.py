"""The command line: `python -m igpt_jax COMMAND --flag=value ...`.

Flags are absl's and ml_collections'; the commands' own code, and jax with it, loads only once the flags are right.
Bad input ends here, as one line on stderr and exit status 2.
"""

import ctypes
import importlib
import os
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from igpt_jax.config import DataConfig, RunConfig
from igpt_jax.errors import InputError

COMMANDS = {
    "palette": "fit colours to the training images of a source, and show them",
    "tokens": "write every split of a source as tokens, once",
    "train": "pretrain, evaluate and draw the report; run again to resume",
    "evaluate": "measure the newest checkpoint: held-out likelihood and linear probes",
    "sample": "draw new images",
    "complete": "draw the rest of images: given rows (ar models) or what a mask hides (bert models)",
    "score": "measure how likely images are, and which pixels surprise",
    "quality": "measure samples beside held-out images: copies, colours, labels",
    "convert": "make weights of one format into another: Hugging Face's, OpenAI's, or a work dir",
}

GENERATING = ("sample", "complete", "score", "quality")

USAGE = """Image GPT in JAX.

usage: python -m igpt_jax COMMAND [--flag=value ...]

commands:
{commands}

`python -m igpt_jax COMMAND --help` lists the command's flags.
Every option of a config can be set on the command line: --config.optimizer.learning_rate=0.003
"""


def main(argv: list[str]) -> int:
    """Runs one command.  Returns the exit status: 0, or 2 for input that cannot work."""
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        lines = [f"  {name:<10}{purpose}" for name, purpose in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)), end="")
        return 0 if len(argv) > 1 else 2
    name, argv = argv[1], [argv[0], *argv[2:]]
    try:
        if name not in COMMANDS:
            raise InputError(f"there is no command {name!r}; choose one of {', '.join(COMMANDS)}")
        options = _define_flags(name, argv)
        if {"-h", "--help"} & set(argv):
            print(f"usage: python -m igpt_jax {name} [--flag=value ...]\n\n{COMMANDS[name]}\n\n{_describe(options)}")
            return 0
        config, workdir = _parse(options, argv)
        if name == "train" and config is None:
            raise InputError("--config=FILE is missing; train needs one, such as experiments/digits.py")
        command = importlib.import_module(f"igpt_jax.commands.{name}").main
        if "distributed" in options:
            importlib.import_module("igpt_jax.parallel.processes").join(options.distributed)
        command(config, workdir, options)
    except InputError as error:
        print(f"igpt_jax {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _define_flags(command, argv):
    options = flags.FlagValues()
    if command == "convert":
        flags.DEFINE_string("input", None, "Work dir, Hugging Face directory, OpenAI checkpoint.", flag_values=options)
        flags.DEFINE_string("output", None, "New directory.", flag_values=options)
        flags.DEFINE_string("to", None, "Format: huggingface, openai or igpt (a work dir).", flag_values=options)
        flags.DEFINE_string("palette", None, "Colours (.npy) where the input has none.", flag_values=options)
        return options
    if command in ("palette", "tokens"):
        _define_source_flags(command, options)
        return options
    if command in GENERATING:
        _define_generation_flags(command, options)
        return options
    config_flags.DEFINE_config_file(
        "config",
        help_string="A Python file with get_config(), such as experiments/digits.py; FILE:ARGUMENT passes one. "
        "evaluate uses the work dir's own where none is given.",
        flag_values=options,
        sys_argv=argv,
    )
    flags.DEFINE_string("workdir", None, "Directory of the run: checkpoints, metrics, report.", flag_values=options)
    _define_distributed(options)
    return options


def _define_distributed(options):
    flags.DEFINE_string(
        "distributed",
        "auto",
        "Processes that run as one: auto (asks Cloud TPU, Slurm, ...; else one), off, or HOST:PORT,COUNT,INDEX.",
        flag_values=options,
    )


def _define_generation_flags(command, options):
    def define(kind, name, default, description):
        getattr(flags, f"DEFINE_{kind}")(name, default, description, flag_values=options)

    _define_distributed(options)
    define("string", "workdir", None, "Work dir of a run; its newest checkpoint.")
    if command != "quality":
        define("string", "weights", None, "In place of --workdir: Hugging Face or OpenAI weights.")
        define("string", "palette", None, "Colours (.npy) where the weights have none.")
        define("string", "dtype", None, "Of products and cache: float32 or bfloat16; the model's own if not given.")
    define("string", "out", None, "Directory for the results; one in the work dir if not given.")
    define("integer", "batch_size", 64, "Images at once; it does not change them.")
    if command in ("complete", "score"):
        define("string", "images", None, "An image or a folder; the first test images of the work dir if not given.")
    if command == "score":
        return
    define("integer", "n", 4 if command == "complete" else 64, "Images to draw, or completions of each.")
    define("float", "temperature", 1.0, "Divides the logits; 0 takes the likeliest.")
    define("integer", "top_k", 0, "Keep the k likeliest colours; 0 keeps all.")
    define("float", "top_p", 1.0, "Keep the likeliest colours of total probability p.")
    define("integer", "seed", 0, "Of the draws.")
    if command in ("sample", "complete"):
        define("bool", "gif", False, "Also show the pixels being drawn: drawing.gif.")
    if command == "complete":
        define("integer", "rows", None, "Given rows; half of them if not given.")
        define("integer", "pixels", None, "Or: given pixels, in raster order.")
        define("string", "mask", None, "bert: a picture, white where pixels are to be filled; a square if not given.")
        define("integer", "rounds", 8, "bert: forward passes, the most certain pixels first.")
        define("integer", "sweeps", 0, "bert: then so many times each hidden pixel anew, given all others (Gibbs).")
    if command == "quality":
        define("integer", "views", 8, "Augmented views of every training image to compare with.")


def _define_source_flags(command, options):
    data = DataConfig()
    flags.DEFINE_string("source", None, "digits, photos, a TFDS image set, or folder:PATH.", flag_values=options)
    flags.DEFINE_string("directory", data.directory, "Where TFDS prepares data sets.", flag_values=options)
    flags.DEFINE_integer("resolution", 32, "Pixels a side, as the model will see them.", flag_values=options)
    flags.DEFINE_string("filter", data.filter, "Of the resampling: area, bilinear, bicubic.", flag_values=options)
    flags.DEFINE_string("on_error", data.on_error, "Images that cannot be decoded: fail, skip.", flag_values=options)
    flags.DEFINE_integer("seed", 0, "Of what is drawn.", flag_values=options)
    if command == "palette":
        flags.DEFINE_integer("size", 512, "Colours, 2 to 65,536.", flag_values=options)
        flags.DEFINE_integer("pixels", 1_000_000, "Pixels to fit.", flag_values=options)
        flags.DEFINE_integer("iterations", 100, "Of k-means, at most.", flag_values=options)
        flags.DEFINE_string("out", "palette.npy", "File; a picture goes beside it.", flag_values=options)
    else:
        flags.DEFINE_string("palette", None, "Colours (.npy).", flag_values=options)
        flags.DEFINE_integer("crops", 1, "Random crops of a training image; 0: one, central.", flag_values=options)
        flags.DEFINE_string("augmentation", data.augmentation, "Of the crops; as config.data.", flag_values=options)
        flags.DEFINE_bool("fold_validation", False, "Count the held-out images as training's.", flag_values=options)
        flags.DEFINE_string("out", None, "New directory.", flag_values=options)


def _describe(options):
    lines = []
    for name in options:
        if name not in ("flagfile", "undefok"):  # absl's own
            default = "" if options[name].default is None else f" [{options[name].default}]"
            lines.append(f"  --{name:<14}{options[name].help}{default}")
    return "\n".join(lines)


def _parse(options, argv):
    """Reads the flags and runs the config file.  Returns (RunConfig or None, work dir or None).

    Whatever is wrong with them becomes an InputError.
    """
    try:
        rest = options(argv)[1:]
        config = options["config"].value if "config" in options else None
        config = config and config.to_dict()
    except AttributeError as error:
        raise InputError(f"the config has no such key: {error.args[0]}") from error
    except (flags.Error, OSError, TypeError, ValueError) as error:
        raise InputError(str(error).strip().splitlines()[-1].strip()) from error
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag; write --name=value")
    if "workdir" not in options or (options["workdir"].value is None and "weights" in options):
        return None, None
    if not options.workdir:
        raise InputError("--workdir=DIR is missing; name the directory of the run")
    return config and RunConfig.from_dict(config), pathlib.Path(options.workdir)


def keep_freed_memory():
    """Has glibc keep and reuse what is freed; by default a CPU spends up to half of a training step on page faults."""
    if "CS_GNU_LIBC_VERSION" in os.confstr_names:
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
        for parameter, value in ((m_trim_threshold, 2**31 - 1), (m_mmap_max, 0), (m_arena_max, 1)):
            mallopt(parameter, value)


def _leave(status):
    """Ends this process, together with those it has joined."""
    if processes := sys.modules.get("igpt_jax.parallel.processes"):
        processes.leave(status)
    sys.exit(status)


if __name__ == "__main__":
    keep_freed_memory()
    _leave(main(sys.argv))
