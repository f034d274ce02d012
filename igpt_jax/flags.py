"""The flags of every command."""

from absl import flags
from ml_collections import config_flags

from igpt_jax.config import EMBEDDED, DataConfig, RunConfig, as_config_dict

GENERATING = ("sample", "complete", "score", "quality")
_LARGEST = 2**31 - 1  # integer
_SMALLEST = {"seed": 0, "batch_size": 1}


def command_flags(command: str, argv: list[str], saved: RunConfig | None = None) -> flags.FlagValues:
    """Defines a command's flags.

    The --config.KEY flags override `saved`, the config of a work dir, or that of the file that `argv` names.
    """
    options = flags.FlagValues()

    def define(kind, name, default, description):
        bounds = {}
        if kind == "integer":
            bounds = {"lower_bound": _SMALLEST.get(name, -_LARGEST), "upper_bound": _LARGEST}
        getattr(flags, f"DEFINE_{kind}")(name, default, description, flag_values=options, **bounds)

    if command == "convert":
        _define_conversion(define)
    elif command in ("palette", "tokens"):
        _define_source(define, command)
    elif command in GENERATING:
        _define_generation(define, command)
        if command == "quality":
            _define_config(options, argv, saved)
    else:
        _define_config(options, argv, saved)
        if command == "plan":
            _define_plan(define)
        else:
            _define_run(define, command)
    return options


def _define_config(options, argv, saved):
    if saved is not None:
        config_flags.DEFINE_config_dict(
            "config", as_config_dict(saved), "The work dir's own.", flag_values=options, sys_argv=argv
        )
        return
    config_flags.DEFINE_config_file(
        "config",
        help_string="A Python file with get_config(), such as experiments/digits.py; FILE:ARGUMENT passes one. "
        "evaluate and quality use the work dir's own where none is given.",
        flag_values=options,
        sys_argv=argv,
    )


def _define_run(define, command):
    define("string", "workdir", None, "Directory of the run: checkpoints, metrics, report.")
    _define_distributed(define)
    define("bool", "report", True, "Draw WORKDIR/report/ at the end.")
    if command == "train":
        define("bool", "profile", False, "Trace a few steps into WORKDIR/profile.")
        define("integer", "replay", None, "Change nothing; show what each image did to this step's loss.")
    if command == "evaluate":
        define("integer", "step", None, "Measure the checkpoint of this very step.")
        define("string", "split", None, "Measure on the test or the validation images, whatever the config says.")
        define("bool", "probe", None, "Fit linear probes; a model that has learned the classes gets none if not given.")


def _define_plan(define):
    define("string", "topology", "v5e:4x4", "Slice, such as v4:2x2x4, v5p:4x4x4, v6e:8x8.")
    define("string", "what", "train", "Program: train, features or sample.")
    define("bool", "json", False, "Print JSON and nothing else.")


def _define_distributed(define):
    choices = "auto (asks Cloud TPU, Slurm, ...; else one), off, or HOST:PORT,COUNT,INDEX"
    define("string", "distributed", "auto", f"Processes that run as one: {choices}.")


def _define_source(define, command):
    data = DataConfig()
    define("string", "source", None, f"{', '.join(EMBEDDED)}, a TFDS image set, or folder:PATH.")
    define("string", "directory", data.directory, "Where TFDS prepares data sets.")
    define("string", "emoji_font", data.emoji.font, "Of source emoji: a font with color bitmaps.")
    define("string", "emoji_list", data.emoji.list, "Of source emoji: Unicode's emoji-test.txt.")
    define("string", "emoji_labels", data.emoji.labels, "Of source emoji: group, subgroup.")
    define("integer", "resolution", 32, "Pixels a side, as the model will see them.")
    define("string", "filter", data.filter, "Of the resampling: area, bilinear, bicubic.")
    define("string", "on_error", data.on_error, "Images that cannot be decoded: fail, skip.")
    define("integer", "seed", 0, "Of what is drawn.")
    if command == "palette":
        define("integer", "size", 512, "Colors, 2 to 65,536.")
        define("integer", "pixels", 1_000_000, "Pixels to fit.")
        define("integer", "iterations", 100, "Of k-means, at most.")
        define("string", "out", "palette.npy", "File; a picture goes beside it.")
    else:
        define("string", "palette", None, "Colors (.npy).")
        define("integer", "crops", 1, "Random crops of a training image; 0: one, central.")
        define("string", "augmentation", data.augmentation, "Of the crops; as config.data.")
        define("bool", "fold_validation", False, "Count the held-out images as training's.")
        define("string", "out", None, "New directory.")


def _define_generation(define, command):
    _define_distributed(define)
    define("string", "workdir", None, "Work dir of a run; its newest checkpoint, or the best if it keeps that.")
    if command != "quality":
        define("string", "weights", None, "In place of --workdir: Hugging Face or OpenAI weights.")
        define("string", "palette", None, "Colors (.npy) where the weights have none.")
        define("string", "dtype", None, "Of products and cache: float32 or bfloat16; the model's own if not given.")
    define("string", "out", None, "Directory for the results; one in the work dir if not given.")
    define("integer", "batch_size", 64, "Images at once; it does not change them.")
    if command in ("complete", "score"):
        define("string", "images", None, "An image or a folder; the first test images of the work dir if not given.")
    if command == "score":
        return
    define("integer", "n", 4 if command == "complete" else 64, "Images to draw, or completions of each.")
    define("float", "temperature", 1.0, "Divides the logits; 0 takes the likeliest.")
    define("integer", "top_k", 0, "Keep the k likeliest colors; 0 keeps all.")
    define("float", "top_p", 1.0, "Keep the likeliest colors of total probability p.")
    define("integer", "seed", 0, "Of the draws.")
    if command in ("sample", "complete"):
        define(
            "string",
            "window",
            "auto",
            "Positions a pass, most of them guessed and checked: 1, 2, ...; for speed alone.",
        )
        define("bool", "gif", False, "Also show the pixels being drawn: drawing.gif, passes.png.")
    if command == "complete":
        define("integer", "rows", None, "Given rows; half of them if not given.")
        define("integer", "pixels", None, "Or: given pixels, in raster order.")
        define("string", "mask", None, "bert: a picture, white where pixels are to be filled; a square if not given.")
        define("integer", "rounds", 8, "bert: forward passes, the most certain pixels first.")
        define("integer", "sweeps", 0, "bert: then so many times each hidden pixel anew, given all others (Gibbs).")
    if command == "quality":
        define("integer", "views", 8, "Augmented views of every training image to compare with.")
        define("string", "metrics", "", "In a network's features, any of: fid,kid,prdc.")
        define("string", "features", None, "Whose: Inception's weights (pytorch-fid's file), or a work dir's network.")
        define("string", "resize", "clean", "To Inception's size: clean (antialiased bicubic) or pytorch_fid.")
        define("string", "samples", None, "Measure these, draw none: a folder, an .npz of images, or tokens:DIR.")
        define("string", "reference", None, "Compare with such a set, or a file of statistics; else training images.")
        define("string", "save_statistics", None, "Also write the reference's mean and covariance to this .npz.")
        define("integer", "neighbors", 5, "k of precision, recall, density and coverage.")
        define("integer", "kid_subset", 0, "Images in KID's subsets; 0: 1,000, or all of the smallest set.")
        define("bool", "infinity", False, "Also extrapolate the Frechet distance to infinitely many images.")


def _define_conversion(define):
    define("string", "input", None, "Work dir, Hugging Face directory, OpenAI checkpoint.")
    define("string", "output", None, "New directory.")
    define("string", "to", None, "Format: huggingface, openai or igpt (a work dir).")
    define("string", "palette", None, "Colors (.npy) where the input has none.")
