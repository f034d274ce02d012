"""The flags of every command."""

from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from igpt_jax.config import EMBEDDED, DataConfig, RunConfig, as_config_dict

LAW = "experiments/results/scaling/law-paper-12.json"
GENERATING = ("sample", "complete", "score", "quality")
_LARGEST = 2**31 - 1  # integer
_SMALLEST = {"seed": 0, "batch_size": 1, "slices": 1}

_Define = Callable[[str, str, Any, str], None]  # from kind, name, default and help text


def command_flags(command: str, argv: list[str], saved: RunConfig | None = None) -> flags.FlagValues:
    """Defines the flags of a command.

    Args:
      command: the name of the command.
      argv: the command line; a --config=FILE in it determines which --config.KEY flags there are.
      saved: the config of a workdir, which --config.KEY flags override in place of a config file.

    Returns:
      The flags, not yet parsed.
    """
    options = flags.FlagValues()

    def define(kind: str, name: str, default: Any, description: str) -> None:
        bounds: dict[str, int] = {}
        if kind == "integer":
            bounds = {"lower_bound": _SMALLEST.get(name, -_LARGEST), "upper_bound": _LARGEST}
        getattr(flags, f"DEFINE_{kind}")(name, default, description, flag_values=options, **bounds)

    if command == "convert":
        _define_conversion(define)
    elif command == "demo":
        _define_demo(define)
    elif command in ("palette", "tokens"):
        _define_source(define, command)
    elif command in GENERATING:
        _define_generation(define, command)
        if command == "quality":
            _define_config(options, command, argv, saved)
    else:
        _define_config(options, command, argv, saved)
        if command == "plan":
            _define_plan(define)
        elif command == "codes":
            define("string", "workdir", None, "Directory of the codec: its file, checkpoints, metrics and pictures.")
        else:
            _define_run(define, command)
    return options


def _define_config(options: flags.FlagValues, command: str, argv: list[str], saved: RunConfig | None) -> None:
    if saved is not None:
        config_flags.DEFINE_config_dict(
            "config",
            as_config_dict(saved),
            "The config of the workdir; --config.KEY=VALUE overrides a key.",
            flag_values=options,
            sys_argv=argv,
        )
        return
    example = "codes" if command == "codes" else "digits"
    default = " Default: the config of the workdir." if command in ("evaluate", "quality") else ""
    config_flags.DEFINE_config_file(
        "config",
        help_string=f"Python file with get_config(), such as experiments/{example}.py; FILE:ARGUMENT passes an "
        f"argument, and --config.KEY=VALUE overrides a key.{default}",
        flag_values=options,
        sys_argv=argv,
    )


def _define_run(define: _Define, command: str) -> None:
    define(
        "string",
        "workdir",
        None,
        "Directory of the run, which holds its checkpoints, metrics and report; gs://BUCKET/PATH works too.",
    )
    _define_distributed(define)
    define("bool", "report", True, "Write figures to WORKDIR/report/ at the end.")
    if command == "train":
        define("bool", "profile", False, "Write a profiler trace of a few steps to WORKDIR/profile.")
        define(
            "integer",
            "replay",
            None,
            "Do not train; repeat this step, and print the loss and the gradient norm of each image in its batch.",
        )
    if command == "evaluate":
        define("integer", "step", None, "Evaluate the checkpoint of this step instead of the best or the newest.")
        define("string", "split", None, "Split to evaluate on, test or validation; overrides the config.")
        define(
            "bool",
            "probe",
            None,
            "Fit linear probes. By default, only if the images have labels and training did not use them.",
        )


def _define_plan(define: _Define) -> None:
    define("string", "topology", "v5e:4x4", "TPU slice to compile for, such as v4:2x2x4, v5p:4x4x4 or v6e:8x8.")
    define("integer", "slices", 1, "How many such slices work together over the data-center network.")
    define("string", "what", "train", "Program to compile: train, features or sample.")
    define("bool", "json", False, "Print the plan as JSON, and nothing else.")
    define(
        "float",
        "flops",
        None,
        "Plan the model and the steps that --law recommends for this many FLOPs of training; the config gives the "
        "ratio of width to layers, the size of a head, and the batch.",
    )
    define(
        "string",
        "law",
        LAW,
        "With --flops: a scaling law, as python -m experiments.scaling writes it; by default that of the checkout.",
    )


def _define_distributed(define: _Define) -> None:
    define(
        "string",
        "distributed",
        "auto",
        "Which processes run as one program: auto asks Cloud TPU, Slurm, Open MPI or Kubernetes, and runs a single "
        "process elsewhere; off runs a single process; HOST:PORT,COUNT,INDEX gives the address of process 0, the "
        "number of processes, and the index of this one.",
    )


def _define_source(define: _Define, command: str) -> None:
    data = DataConfig()
    define("string", "source", None, f"Images to read: {', '.join(EMBEDDED)}, a TFDS image set, or folder:PATH.")
    define("string", "directory", data.directory, "Directory in which TFDS prepares data sets; empty: TFDS's default.")
    define("string", "emoji_font", data.emoji.font, "For --source=emoji: a font with color bitmaps.")
    define("string", "emoji_list", data.emoji.list, "For --source=emoji: Unicode's emoji-test.txt.")
    define("string", "emoji_labels", data.emoji.labels, "For --source=emoji: what the labels are, group or subgroup.")
    define("integer", "emoji_side", data.emoji.side, "For --source=emoji: side of the drawings, in pixels.")
    define("integer", "resolution", 32, "Side that the images are resized to, in pixels.")
    define("string", "filter", data.filter, "Filter for resizing images: area, bilinear or bicubic.")
    define("string", "on_error", data.on_error, "What to do with images that cannot be decoded: fail or skip.")
    if command == "palette":
        define("integer", "seed", 0, "Seed of the sample of pixels and of k-means.")
        define("integer", "size", 512, "Number of colors to fit, 2 to 65,536.")
        define("integer", "pixels", 1_000_000, "Number of pixels to sample for the fit.")
        define("integer", "iterations", 100, "Maximum number of k-means iterations.")
        define("string", "out", "palette.npy", "Palette file to write (.npy); a picture is written next to it (.png).")
    else:
        define("integer", "seed", 0, "Seed of the crops.")
        define("string", "palette", None, "Palette (.npy) or codec (its workdir) that encodes the images.")
        define("integer", "crops", 1, "Number of random crops of each training image; 0 takes one central crop.")
        define(
            "string",
            "augmentation",
            data.augmentation,
            "Augmentation that makes the crops: auto, none, flip, crop, pad_crop_flip or place, as in "
            "config.data.augmentation.",
        )
        define("bool", "fold_validation", False, "Include the validation images in the training split.")
        define("string", "out", None, "Directory to write; the same command continues it after an interruption.")
        define(
            "string",
            "beam",
            None,
            "Write the shards on many machines with Apache Beam; its pipeline options, such as "
            "'--runner=DataflowRunner --region=us-central1', or '' for this machine.",
        )


def _define_generation(define: _Define, command: str) -> None:
    _define_distributed(define)
    define(
        "string", "workdir", None, "Workdir of a run; uses its newest checkpoint, or the best if the run keeps that."
    )
    if command != "quality":
        define("string", "weights", None, "Hugging Face or OpenAI weights to use instead of --workdir.")
        define("string", "palette", None, "Palette to use instead of that of the weights, or if they have none (.npy).")
        define(
            "string",
            "dtype",
            None,
            "Dtype of matmuls and of the KV cache, float32 or bfloat16; by default that of the model.",
        )
    define("string", "out", None, "Directory for the results; by default one in the workdir.")
    define("integer", "batch_size", 64, "Number of images to process at once; does not change the results.")
    if command in ("complete", "score"):
        define(
            "string", "images", None, "Image file, or folder of images; by default the first test images of the run."
        )
    if command == "score":
        return
    if command == "complete":
        define("integer", "n", 4, "Number of completions of each image.")
    else:
        define("integer", "n", 64, "Number of images to sample.")
    define(
        "float", "temperature", 1.0, "Sampling temperature, which divides the logits; 0 takes the most likely color."
    )
    define("integer", "top_k", 0, "Sample only among the k most likely colors; 0 samples among all.")
    define("float", "top_p", 1.0, "Sample only among the most likely colors that together have probability p.")
    define("integer", "seed", 0, "Seed of sampling.")
    if command in ("sample", "complete"):
        define(
            "string",
            "window",
            "auto",
            "Number of pixels that a forward pass evaluates: 1, 2, ... or auto. A window above 1 guesses pixels and "
            "checks the guesses; the images are the same, up to ties within rounding.",
        )
        define("bool", "gif", False, "Also write drawing.gif and passes.png, which show the order of sampling.")
    if command == "complete":
        define("integer", "rows", None, "Number of rows given at the top of each image; ar models default to half.")
        define("integer", "pixels", None, "Number of pixels given in raster order, instead of --rows.")
        define(
            "string",
            "mask",
            None,
            "For bert models: image that is white where pixels are to be filled in; by default, the central square.",
        )
        define("integer", "rounds", 8, "For bert models: forward passes that fill in pixels, the most certain first.")
        define(
            "integer",
            "sweeps",
            0,
            "For bert models: Gibbs sweeps after that, each sampling every hidden pixel again given all others.",
        )
    if command == "quality":
        define(
            "integer",
            "views",
            8,
            "Number of augmented views of each training image to compare the samples with; 1 if all views are alike.",
        )
        define("string", "metrics", "", "Metrics to compute in the features of a network: any of fid,kid,prdc.")
        define(
            "string",
            "features",
            None,
            "Network for --metrics: the file of pytorch-fid's Inception weights, or a workdir.",
        )
        define(
            "string",
            "resize",
            "clean",
            "How to resize for Inception: clean (antialiased bicubic) or pytorch_fid.",
        )
        define(
            "string",
            "samples",
            None,
            "Measure these images instead of sampling: a folder, an .npz file of images, or tokens:DIR.",
        )
        define(
            "string",
            "reference",
            None,
            "Compare features with those of these images (as --samples), or with a file of statistics; by default with "
            "the training images.",
        )
        define("string", "save_statistics", None, "Also write the reference's mean and covariance to this .npz file.")
        define("integer", "neighbors", 5, "Number of nearest neighbors k for precision, recall, density and coverage.")
        define(
            "integer",
            "kid_subset",
            0,
            "Number of images in each subset of KID; 0 means 1,000, or the size of the smallest set if that is less.",
        )
        define("bool", "infinity", False, "Also extrapolate the Frechet distance to infinitely many images.")


def _define_conversion(define: _Define) -> None:
    define("string", "input", None, "Weights to convert: a workdir, a Hugging Face directory or an OpenAI checkpoint.")
    define("string", "output", None, "Directory to create.")
    define("string", "to", None, "Format to write: huggingface, openai or igpt (a workdir).")
    define("string", "palette", None, "Palette to use instead of that of the input, or if it has none (.npy).")


def _define_demo(define: _Define) -> None:
    define("string", "workdir", None, "Workdir of a run; its test images can be tried on the page.")
    define("string", "weights", None, "Other models to choose from, separated by commas: workdirs or weights.")
    define("string", "palette", None, "Palette to use instead of that of the models, or if they have none (.npy).")
    define("string", "host", "127.0.0.1", "Address to listen on; by default, only this machine can open the page.")
    define("integer", "port", 7860, "Port to listen on.")
    define("bool", "browser", True, "Open the page in a browser.")
