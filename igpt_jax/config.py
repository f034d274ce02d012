"""Every option of the system on one page: seven frozen sections, which ml_collections flags can override.

Experiment files start from `default_config()`, a locked ConfigDict, and set what differs. `RunConfig.from_dict` turns
it into frozen dataclasses, so that no other module depends on ml_collections. Every dataclass checks its own values
when it is created, and raises InputError for one that cannot work.
"""

import dataclasses
import pathlib
import typing
from typing import Any

from igpt_jax.errors import InputError
from igpt_jax.typed import read_dataclass

if typing.TYPE_CHECKING:
    import ml_collections

OBJECTIVES = ("ar", "bert")
EMBEDDED = ("digits", "emoji", "photographs", "blended_digits")  # data sets that need no download
# What an evaluation measures, and which value is best.
BEST = {"validation/nats_per_token": min, "validation/accuracy": max, "probe/accuracy": max}
# What the backward pass recomputes, from most memory to least: nothing; all but matmuls and attention; all but
# attention; everything.
REMAT = ("none", "dots", "attention", "full")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"{name}={value!r} is not known; choose one of {', '.join(choices)}")


def _check_at_least(least: int, config: object, section: str, *names: str, meaning: str = "") -> None:
    """Checks the named options of a section; `meaning` says what the value `least` stands for."""
    for name in names:
        value = getattr(config, name)
        _check(value >= least, f"{section}{name}={value} must be at least {least}" + (meaning and f" ({meaning})"))


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and arithmetic of one Image GPT; equal configs give interchangeable parameters (paper, section 3.3)."""

    layers: int = 24
    width: int = 512
    heads: int = 8
    resolution: int = 32  # pixels per side; a sequence has resolution**2 positions
    vocabulary: int = 512  # colors in the palette
    classes: int = 0  # outputs of the class head; 0: no head, or the data's classes if objective.class_weight > 0
    head_layer: int = -1  # the layer l whose pooled n^l the class head reads, 0 to `layers`; -1: the last (final norm)
    objective: str = "ar"  # "ar": causal, with a start vector; "bert": bidirectional, with masked pixels
    token_head: bool = True  # False: features and classes only, as in headless Hugging Face checkpoints
    tied_head: bool = False  # True: the token head shares the token embedding, which the paper found slightly worse
    zero_heads: bool = True  # initialize token and class head to zero; False: from N(0, 0.02), as GPT-2 does
    use_bias: bool = False  # biases in every linear layer; the released weights have none, Hugging Face's may
    positions: str = "learned"  # "learned": one vector per position, as released; "rotary": rotates by row and column
    qk_norm: bool = False  # True: an RMS norm over the queries and over the keys of every head
    activation: str = "quick_gelu"  # of the MLP: "quick_gelu", as released; "squared_relu"; "swiglu", of equal size
    dtype: str = "float32"  # of the matmuls, or "bfloat16"; parameters, norms, softmax and loss are always float32
    attention: str = "auto"  # "splash" (TPU), "cudnn" (GPU), "blockwise", "plain"; "auto": the platform's fastest
    remat: str = "none"  # what the backward pass recomputes, one of REMAT; "auto": the least that fits into memory
    unroll: int = 1  # layers per iteration of the scan; 1 compiles fastest, `layers` runs fastest on a CPU or GPU

    def __post_init__(self) -> None:
        _check_at_least(1, self, "model.", "layers", "width", "heads", "resolution", "vocabulary", "unroll")
        _check_at_least(0, self, "model.", "classes", meaning="no class head")
        _check(
            -1 <= self.head_layer <= self.layers,
            f"model.head_layer={self.head_layer}; a model of {self.layers} layers has 0 to {self.layers}, and -1 is "
            "the last",
        )
        _check(
            self.width % self.heads == 0,
            f"model.width={self.width} is not divisible by model.heads={self.heads}; choose a divisor of the width",
        )
        _check(
            self.token_head or not self.tied_head,
            "model.tied_head=True asks for a token head, and model.token_head=False asks for none; change one of them",
        )
        _check_choice("model.objective", self.objective, OBJECTIVES)
        _check_choice("model.positions", self.positions, ("learned", "rotary"))
        _check(
            self.positions == "learned" or self.head_dim % 4 == 0,
            f"model.positions=rotary rotates pairs by row and pairs by column, so the head dimension {self.head_dim} = "
            "model.width / model.heads must be divisible by 4; change one of them",
        )
        _check_choice("model.activation", self.activation, ("quick_gelu", "squared_relu", "swiglu"))
        _check_choice("model.dtype", self.dtype, ("float32", "bfloat16"))
        _check_choice("model.attention", self.attention, ("auto", "plain", "blockwise", "splash", "cudnn"))
        _check_choice("model.remat", self.remat, ("auto", *REMAT))

    @property
    def context(self) -> int:
        """Positions in a sequence: one per pixel."""
        return self.resolution**2

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Width inside the MLP: 4 x `width`, or 8/3 of it for "swiglu", whose third matrix brings the size back up."""
        return 8 * round(self.width / 3) if self.activation == "swiglu" else 4 * self.width

    @property
    def causal(self) -> bool:
        """Whether each pixel is predicted from the pixels before it alone."""
        return self.objective == "ar"

    @property
    def head_on_final_norm(self) -> bool:
        """Whether the class head reads the output of the final norm, the last layer of features."""
        return self.head_layer in (-1, self.layers)


SIZES = {
    "s": ModelConfig(layers=24, width=512, heads=8),
    "m": ModelConfig(layers=36, width=1024, heads=8),
    "l": ModelConfig(layers=48, width=1536, heads=16),
    # The paper does not publish XL's number of heads; 24 heads of dimension 128 fill a TPU's lanes.
    "xl": ModelConfig(layers=60, width=3072, heads=24, resolution=64),
}


@dataclasses.dataclass(frozen=True)
class EmojiConfig:
    """The images of `data.name=emoji`: a color bitmap font (CBDT or sbix) and Unicode's list of emoji."""

    font: str = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"  # Debian's fonts-noto-color-emoji
    list: str = "/usr/share/unicode/emoji/emoji-test.txt"  # Debian's unicode-data
    labels: str = "group"  # classes: "group" gives nine, "subgroup" about a hundred
    side: int = 64  # of the stored drawings, in pixels

    def __post_init__(self) -> None:
        _check_choice("data.emoji.labels", self.labels, ("group", "subgroup"))
        _check_at_least(1, self, "data.emoji.", "side")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images come from, how they are augmented and resized, and how many form a batch."""

    name: str = "digits"  # one of EMBEDDED, any TFDS image set, folder:PATH, or tokens:PATH
    directory: str = ""  # where TFDS keeps prepared data sets; "": TFDS's own default
    batch_size: int = 128  # images per step, over all processes
    augmentation: str = "auto"  # "none", "flip", "crop", "pad_crop_flip", "place"; "auto": the paper's for the source
    filter: str = "area"  # how images are resized: "area", "bilinear", "bicubic"; the paper does not say
    fold_validation: bool = False  # True: train on the held-out images too, as in the paper's final runs
    on_error: str = "fail"  # for an image that cannot be decoded: "fail" names it; "skip" takes the epoch's next one
    max_skipped: int = 100  # images that on_error="skip" may skip in one process
    max_pixels: int = 100_000_000  # larger images are refused before they are decoded
    emoji: EmojiConfig = EmojiConfig()

    def __post_init__(self) -> None:
        _check_at_least(1, self, "data.", "batch_size", "max_skipped", "max_pixels")
        augmentations = ("auto", "none", "flip", "crop", "pad_crop_flip", "place")
        _check_choice("data.augmentation", self.augmentation, augmentations)
        _check_choice("data.filter", self.filter, ("area", "bilinear", "bicubic"))
        _check_choice("data.on_error", self.on_error, ("fail", "skip"))

    @property
    def tolerated(self) -> int:
        """How many images that cannot be decoded one process may skip."""
        return self.max_skipped if self.on_error == "skip" else 0


@dataclasses.dataclass(frozen=True)
class PaletteConfig:
    """The palette: read from a file, or fitted to the training images with `model.vocabulary` colors."""

    path: str = ""  # a palette.npy of shape (v, 3) in [-1, 1], or the workdir of a codec; "": fit a palette
    pixels: int = 1_000_000  # how many pixels to sample for the fit
    iterations: int = 100  # of k-means, at most

    def __post_init__(self) -> None:
        _check_at_least(1, self, "palette.", "pixels", "iterations")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The training loss: generation, classification or both. `model.objective` follows `name`."""

    name: str = "ar"  # "ar": predict every pixel from those before it; "bert": masked pixels from all others
    mask_rate: float = 0.15  # "bert": the probability that a pixel is masked (paper, section 2.1)
    generation_weight: float = 1.0  # weight of the loss that `name` gives; 0: classification alone
    class_weight: float = 0.0  # weight of the classification loss; the paper fine-tunes with both at 1 (section 2.3)

    def __post_init__(self) -> None:
        _check_choice("objective.name", self.name, OBJECTIVES)
        _check(0 < self.mask_rate <= 1, f"objective.mask_rate={self.mask_rate} must lie in (0, 1]")
        _check_at_least(0, self, "objective.", "generation_weight", "class_weight", meaning="left out")
        _check(
            self.class_weight > 0 or self.generation_weight == 1,
            f"objective.generation_weight={self.generation_weight:g} weighs against objective.class_weight, which is "
            "0; raise objective.class_weight, or leave objective.generation_weight at 1",
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its schedule; by default the paper's pretraining: Adam, warm-up, cosine (section 3.4)."""

    name: str = "adam"  # "adam"; "muon": Muon for the matrices of the blocks, and Adam for all other parameters
    learning_rate: float = 1e-3  # Adam's peak
    muon_learning_rate: float = 0.02  # Muon's peak
    muon_momentum: float = 0.95
    weight_decay: float = 0.0  # "muon": each step shrinks the matrices by this fraction, times the learning rate
    warmup_epochs: float = 1.0  # shortened to a quarter of the run in short runs
    # After the warm-up: "cosine" falls to 0 at the end; "constant" is for fine-tuning (paper, section 3.4); "wsd"
    # (warm-up, stable, decay) stays constant and then falls linearly to 0.
    schedule: str = "cosine"
    decay_fraction: float = 0.2  # "wsd": the last fraction of the steps, in which the learning rate falls
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    skip_spikes: int = 0  # skip up to this many steps with a NaN or infinite loss or gradient before stopping

    def __post_init__(self) -> None:
        _check_choice("optimizer.name", self.name, ("adam", "muon"))
        _check_choice("optimizer.schedule", self.schedule, ("cosine", "constant", "wsd"))
        _check_at_least(0, self, "optimizer.", "skip_spikes", meaning="stop at once")
        for name in ("learning_rate", "muon_learning_rate"):
            _check(getattr(self, name) > 0, f"optimizer.{name}={getattr(self, name)} must be positive")
        for name in ("muon_momentum", "b1", "b2"):
            _check(0 <= getattr(self, name) < 1, f"optimizer.{name}={getattr(self, name)} must lie in [0, 1)")
        _check(self.eps > 0, f"optimizer.eps={self.eps} must be positive")
        _check_at_least(0, self, "optimizer.", "weight_decay", "warmup_epochs")
        _check(
            self.name == "muon" or self.weight_decay == 0,
            f"optimizer.weight_decay={self.weight_decay} works with Muon alone; set optimizer.name=muon, or "
            "optimizer.weight_decay=0",
        )
        _check(0 < self.decay_fraction <= 1, f"optimizer.decay_fraction={self.decay_fraction} must lie in (0, 1]")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """Devices along each axis of the mesh.  For data or model, -1 uses all that the other axes leave."""

    data: int = -1  # splits the batch, the parameters and the optimizer state; of one slice
    model: int = 1  # splits the attention heads and the MLP width
    slices: int = -1  # TPU slices, which split the batch; each holds all parameters; -1: as many as the devices are of
    microbatches: int = 1  # parts of a batch computed one after another (gradient accumulation); more need less memory

    def __post_init__(self) -> None:
        _check_at_least(1, self, "parallel.", "microbatches")
        for name in ("data", "model", "slices"):
            size = getattr(self, name)
            _check(size == -1 or size >= 1, f"parallel.{name}={size} must be -1 or at least 1")
        _check(self.data != -1 or self.model != -1, "parallel.data and parallel.model cannot both be -1; give one")


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """The linear probe: one logistic regression on the standardized features of each layer (paper, section 3.1).

    For "sgd" the paper gives learning rates, momentum and steps. Batch size and weight decay are MoCo's, whose recipe
    the paper cites.
    """

    layers: tuple[int, ...] = ()  # layers to probe, from 0 to model.layers; (): all of them
    concatenate: int = 0  # also probe the concatenation of this many layers around the best one; the paper's XL uses 5
    normalized: bool = True  # read the features after each block's first norm, as in the paper; False: before it
    held_out: float = 0.1  # fraction of the training images that selects L2 strength or learning rate, and layer
    augmented_epochs: int = 0  # augmented views of each training image; 0: one view, without augmentation
    solver: str = "lbfgs"  # "lbfgs": the paper's for CIFAR and STL-10; "sgd": the paper's for ImageNet
    l2: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # "lbfgs": L2 strengths to try, relative to the mean loss
    rates: tuple[float, ...] = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # "sgd": tried in order until one is worse
    steps: int = 1_000_000  # "sgd": training steps
    batch_size: int = 256  # "sgd": images per step
    weight_decay: float = 0.0  # "sgd"
    labels_per_class: tuple[int, ...] = ()  # `evaluate` also probes with so few labels; the paper uses (4, 25, 400)
    subsets: int = 5  # random subsets of the labels for each entry of labels_per_class
    memory: float = 8.0  # GiB; if the features of a split need more, they are kept on disk, in the workdir

    def __post_init__(self) -> None:
        _check_choice("evaluate.probe.solver", self.solver, ("lbfgs", "sgd"))
        _check(len(self.l2) > 0, "evaluate.probe.l2 is empty; give at least one strength, such as (0.01,)")
        _check(len(self.rates) > 0, "evaluate.probe.rates is empty; give at least one, such as (1.0,)")
        for strength in self.l2:
            _check(strength >= 0, f"evaluate.probe.l2 has {strength}; a strength is 0 or more")
        for rate in self.rates:
            _check(rate > 0, f"evaluate.probe.rates has {rate}; a learning rate is positive")
        _check(0 < self.held_out < 1, f"evaluate.probe.held_out={self.held_out} must lie between 0 and 1")
        _check_at_least(0, self, "evaluate.probe.", "augmented_epochs", "concatenate", "weight_decay", "memory")
        _check_at_least(1, self, "evaluate.probe.", "steps", "batch_size")
        for labels in self.labels_per_class:
            _check(labels >= 1, f"evaluate.probe.labels_per_class has {labels}; give 1 or more")
        _check_at_least(2, self, "evaluate.probe.", "subsets", meaning="to have a standard deviation")
        _check(
            self.solver == "lbfgs" or not self.labels_per_class,
            "evaluate.probe.labels_per_class takes its L2 strength from the probe of all images; "
            "set evaluate.probe.solver=lbfgs",
        )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is measured during and after training."""

    every: int = 0  # steps between evaluations; 0: evaluate at the end only
    batch_size: int = 128  # images in one forward pass
    views: int = 1  # views of each measured image, which augmentation "place" places anew; results are averaged
    split: str = "test"  # the images to measure on: "test", or "validation" while options are still being chosen
    votes: int = 5  # "bert": classify each image under this many random masks and take the mode (paper: 5)
    probe: ProbeConfig = ProbeConfig()

    def __post_init__(self) -> None:
        _check_at_least(0, self, "evaluate.", "every", meaning="at the end only")
        _check_at_least(1, self, "evaluate.", "batch_size", "views", "votes")
        _check_choice("evaluate.split", self.split, ("test", "validation"))


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run: the seven sections, and the options that belong to none of them."""

    seed: int = 0  # of all random numbers
    steps: int = 1_000_000  # of training
    log_every: int = 50  # steps between lines of metrics
    tracker: str = ""  # also sends metrics to "wandb" (Weights & Biases) or "trackio"; "": files and TensorBoard only
    checkpoint_every: int = 1000  # steps between checkpoints; also before each evaluation and after the last step
    keep_checkpoints: int = 3  # how many of the newest checkpoints to keep
    keep_every: int = 0  # also keep the checkpoint of every step that this number divides; 0: none
    keep_best: str = ""  # a metric in BEST: also keep the checkpoint where it was best, and make that the run's result
    stop_after: int = 0  # end the run after this many evaluations in which `keep_best` did not improve; 0: never
    initialize_from: str = ""  # a workdir, Hugging Face directory or OpenAI checkpoint to fine-tune; "": random weights
    # WORKDIR/checkpoints/STEP to continue from. The run that wrote it must have had the same options and, up to STEP,
    # the same learning rates.
    continue_from: str = ""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    palette: PaletteConfig = PaletteConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def __post_init__(self) -> None:
        _check_at_least(0, self, "", "seed")
        _check_at_least(1, self, "", "steps", "log_every", "checkpoint_every", "keep_checkpoints")
        _check_at_least(0, self, "", "keep_every", meaning="keep none")
        _check_at_least(0, self, "", "stop_after", meaning="never stop early")
        _check(
            self.model.objective == self.objective.name,
            f"model.objective={self.model.objective!r} but objective.name={self.objective.name!r}; set objective.name",
        )
        _check_choice("tracker", self.tracker, ("", "wandb", "trackio"))
        checkpoint = pathlib.PurePath(self.continue_from)
        _check(
            not self.continue_from or (checkpoint.name.isdecimal() and checkpoint.parent.name == "checkpoints"),
            f"continue_from={self.continue_from!r} is not a checkpoint; give WORKDIR/checkpoints/STEP",
        )
        _check(
            not (self.continue_from and self.initialize_from),
            "continue_from and initialize_from both say what the run starts from; give one",
        )
        _check_choice("keep_best", self.keep_best, ("", *BEST))
        _check(
            not self.keep_best or (self.evaluate.every > 0 and self.evaluate.split == "validation"),
            f"keep_best={self.keep_best!r} needs evaluations during training, on the validation images; "
            "set evaluate.every, and evaluate.split=validation",
        )
        learns_classes = self.objective.class_weight > 0
        _check(
            self.model.token_head or not learns_classes,
            "model.token_head=False is for loading weights without a token head; set it to True to train: a head that "
            "the weights lack starts at zero",
        )
        _check(
            self.keep_best != ("probe/accuracy" if learns_classes else "validation/accuracy"),
            f"keep_best={self.keep_best!r} is not measured while objective.class_weight="
            f"{self.objective.class_weight:g}; set it to {'validation' if learns_classes else 'probe'}/accuracy",
        )
        _check(
            not self.stop_after or bool(self.keep_best),
            f"stop_after={self.stop_after} does not say which metric must improve; set keep_best, such as "
            "keep_best=validation/accuracy",
        )
        for layer in self.evaluate.probe.layers:
            _check(
                0 <= layer <= self.model.layers,
                f"evaluate.probe.layers names layer {layer}; a model of {self.model.layers} layers has 0 to "
                f"{self.model.layers}",
            )
        _check(
            self.evaluate.probe.concatenate <= self.model.layers + 1,
            f"evaluate.probe.concatenate={self.evaluate.probe.concatenate}, but a model of {self.model.layers} layers "
            f"has features of {self.model.layers + 1}",
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Builds a config from nested dicts, and checks every key and value.

        Args:
          values: from `ConfigDict.to_dict()` or JSON. `model.objective` may be left out: it follows `objective.name`.

        Raises:
          InputError: a key is unknown, or a value cannot work; the message names the first such option.
        """
        values = {"objective": {}, "model": {}} | values
        for section in ("objective", "model"):
            _check(type(values[section]) is dict, f"{section}={values[section]!r} is no section of keys")
        name = values["objective"].get("name", ObjectiveConfig.name)
        values["model"] = {"objective": name} | values["model"]
        return read_dataclass(cls, values)


def default_config() -> "ml_collections.ConfigDict":
    """Returns a locked ConfigDict of every option at its default; setting a misspelled key raises AttributeError.

    It has no `model.objective`, which follows `objective.name`.
    """
    return as_config_dict(RunConfig())


def as_config_dict(config: RunConfig) -> "ml_collections.ConfigDict":
    """Returns the same options as a locked ConfigDict, which flags can override; `RunConfig.from_dict` inverts it."""
    import ml_collections  # not at the top of the file, so that the model imports without it

    values = dataclasses.asdict(config)
    del values["model"]["objective"]
    return ml_collections.ConfigDict(values).lock()
