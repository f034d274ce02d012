"""Every option of the system on one page: seven frozen sections, which ml_collections flags can override.

Experiment files start from `default_config()`, a locked ConfigDict, and set what differs. At the edge of the
program `RunConfig.from_dict` turns it into frozen dataclasses, so that the core never sees a ConfigDict.
"""

import dataclasses
import pathlib
import typing

from igpt_jax.errors import InputError
from igpt_jax.typed import read_dataclass

if typing.TYPE_CHECKING:
    import ml_collections

OBJECTIVES = ("ar", "bert")
EMBEDDED = ("digits", "emoji", "photographs", "blended_digits")  # data sets that need no download
# What an evaluation measures, and which value is best.
BEST = {"validation/nats_per_token": min, "validation/accuracy": max, "probe/accuracy": max}


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"{name}={value!r} is not known; choose one of {', '.join(choices)}")


# From most memory to most arithmetic: recomputed is nothing; all but products and attention; all but attention; all.
REMAT = ("none", "dots", "attention", "full")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and arithmetic of one Image GPT; equal configs give interchangeable parameters (paper, section 3.3)."""

    layers: int = 24
    width: int = 512
    heads: int = 8
    resolution: int = 32  # pixels a side; the context is resolution**2 positions
    vocabulary: int = 512  # palette colors
    classes: int = 0  # 0: no class head, or as many as the data have where objective.class_weight asks for one
    head_layer: int = -1  # the layer l whose pooled n^l the class head reads, 0 to layers; -1: the last, the final norm
    objective: str = "ar"  # "ar": causal with a start vector; "bert": every position sees every other
    token_head: bool = True  # False: features and classes only, as of headless Hugging Face checkpoints
    tied_head: bool = False  # True: the token head is the token embedding, which the paper found slightly worse
    zero_heads: bool = True  # initial token and class head; False: drawn from N(0, 0.02), as GPT-2 draws its weights
    use_bias: bool = False  # the released weights have none; Hugging Face checkpoints may
    positions: str = "learned"  # a vector for each, as released; "rotary": by row and column, for any resolution
    qk_norm: bool = False  # True: queries and keys of every head pass through a norm
    activation: str = "quick_gelu"  # the released MLP's; "squared_relu"; "swiglu": gated, with as many weights
    dtype: str = "float32"  # of the matrix products; parameters, norms, softmax and loss stay float32
    attention: str = "auto"  # "splash" (TPU), "cudnn" (GPU), "blockwise", "plain"; "auto": the fastest for the platform
    remat: str = "none"  # what the backward pass recomputes, one of REMAT; "auto": the least that the memory allows
    unroll: int = 1  # blocks an iteration of the layer scan; `layers` is fastest on a CPU or GPU, 1 compiles fastest

    def __post_init__(self):
        for name in ("layers", "width", "heads", "resolution", "vocabulary", "unroll"):
            _check(getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be at least 1")
        _check(self.classes >= 0, f"model.classes={self.classes} must be 0 (no class head) or more")
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
            "model.tied_head=True asks for a token head, and model.token_head=False for none; change one of them",
        )
        _check_choice("model.objective", self.objective, OBJECTIVES)
        _check_choice("model.positions", self.positions, ("learned", "rotary"))
        _check(
            self.positions == "learned" or self.head_dim % 4 == 0,
            f"model.positions=rotary turns pairs for rows and for columns, so a head's {self.head_dim} = model.width / "
            "model.heads must be divisible by 4; change one of them",
        )
        _check_choice("model.activation", self.activation, ("quick_gelu", "squared_relu", "swiglu"))
        _check_choice("model.dtype", self.dtype, ("float32", "bfloat16"))
        _check_choice("model.attention", self.attention, ("auto", "plain", "blockwise", "splash", "cudnn"))
        _check_choice("model.remat", self.remat, ("auto", *REMAT))

    @property
    def context(self) -> int:
        """Positions in a sequence: one a pixel."""
        return self.resolution**2

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Width inside the MLP: four times the model's, or two thirds of that where a third matrix gates it."""
        return 8 * round(self.width / 3) if self.activation == "swiglu" else 4 * self.width

    @property
    def causal(self) -> bool:
        """Whether position i sees only what comes before it."""
        return self.objective == "ar"

    @property
    def head_on_final_norm(self) -> bool:
        """Whether the class head reads the last layer of features."""
        return self.head_layer in (-1, self.layers)


SIZES = {
    "s": ModelConfig(layers=24, width=512, heads=8),
    "m": ModelConfig(layers=36, width=1024, heads=8),
    "l": ModelConfig(layers=48, width=1536, heads=16),
    # The paper does not publish the heads of XL; 24 of dimension 128 fill a TPU's lanes.
    "xl": ModelConfig(layers=60, width=3072, heads=24, resolution=64),
}


@dataclasses.dataclass(frozen=True)
class EmojiConfig:
    """What `data.name=emoji` draws: a color bitmap font (CBDT or sbix), and Unicode's list."""

    font: str = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"  # Debian's fonts-noto-color-emoji
    list: str = "/usr/share/unicode/emoji/emoji-test.txt"  # Debian's unicode-data
    labels: str = "group"  # nine, or "subgroup", about a hundred

    def __post_init__(self):
        _check_choice("data.emoji.labels", self.labels, ("group", "subgroup"))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images come from, what is done to them, and how many make a step."""

    name: str = "digits"  # one of EMBEDDED, any TFDS image set, folder:PATH, or tokens:PATH
    directory: str = ""  # where TFDS prepares data sets; "" is TFDS's own default
    batch_size: int = 128  # images a step, over all processes
    augmentation: str = "auto"  # "none", "flip", "crop", "pad_crop_flip", "place"; "auto": the paper's for the source
    filter: str = "area"  # of the resampling: "area", "bilinear", "bicubic"; the paper does not name its own
    fold_validation: bool = False  # train on the held-out images too, as for the paper's final runs
    on_error: str = "fail"  # an image that cannot be decoded: "fail" names it, "skip" takes the epoch's next instead
    max_skipped: int = 100  # broken images that "skip" tolerates in one process
    max_pixels: int = 100_000_000  # encoded images with more are refused before they are decoded
    emoji: EmojiConfig = EmojiConfig()

    def __post_init__(self):
        _check(self.batch_size >= 1, f"data.batch_size={self.batch_size} must be at least 1")
        augmentations = ("auto", "none", "flip", "crop", "pad_crop_flip", "place")
        _check_choice("data.augmentation", self.augmentation, augmentations)
        _check_choice("data.filter", self.filter, ("area", "bilinear", "bicubic"))
        _check_choice("data.on_error", self.on_error, ("fail", "skip"))
        for name in ("max_skipped", "max_pixels"):
            _check(getattr(self, name) >= 1, f"data.{name}={getattr(self, name)} must be at least 1")

    @property
    def tolerated(self) -> int:
        """How many broken images may be skipped."""
        return self.max_skipped if self.on_error == "skip" else 0


@dataclasses.dataclass(frozen=True)
class PaletteConfig:
    """The colors: a file, or a fit to the training images with `model.vocabulary` colors."""

    path: str = ""  # palette.npy, (v, 3) in [-1, 1]; "" fits one
    pixels: int = 1_000_000  # pixels sampled for the fit
    iterations: int = 100  # Lloyd iterations at most

    def __post_init__(self):
        _check(self.pixels >= 1, f"palette.pixels={self.pixels} must be at least 1")
        _check(self.iterations >= 1, f"palette.iterations={self.iterations} must be at least 1")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What the loss asks of the model: generation, classification or both; `model.objective` follows `name`."""

    name: str = "ar"  # "ar": every pixel from those before it; "bert": hidden pixels from all others
    mask_rate: float = 0.15  # "bert": the chance that a pixel is hidden (paper, section 2.1)
    generation_weight: float = 1.0  # of the loss that `name` says; 0: classes alone
    class_weight: float = 0.0  # of the labels' loss; the paper fine-tunes with 1 and 1 (section 2.3)

    def __post_init__(self):
        _check_choice("objective.name", self.name, OBJECTIVES)
        _check(0 < self.mask_rate <= 1, f"objective.mask_rate={self.mask_rate} must lie in (0, 1]")
        for name in ("generation_weight", "class_weight"):
            _check(getattr(self, name) >= 0, f"objective.{name}={getattr(self, name)} must be 0 (left out) or more")
        _check(
            self.class_weight > 0 or self.generation_weight == 1,
            f"objective.generation_weight={self.generation_weight:g} weighs against objective.class_weight, which is "
            "0; raise that one, or leave this at 1",
        )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam with one epoch of warm-up, then a cosine to zero in pretraining (paper, section 3.4)."""

    name: str = "adam"  # "muon": for the matrices of the blocks, and Adam for all else
    learning_rate: float = 1e-3  # the peak, of Adam
    muon_learning_rate: float = 0.02  # the peak, of Muon
    muon_momentum: float = 0.95
    weight_decay: float = 0.0  # "muon": the part of a matrix that goes in a step, times its learning rate
    warmup_epochs: float = 1.0
    schedule: str = "cosine"  # after the warm-up: to 0 at the last step; "constant" for fine-tuning (section 3.4)
    # "wsd" (warm-up, stable, decay): constant, then linearly to 0
    decay_fraction: float = 0.2  # "wsd": the part of the steps over which the rate falls
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    skip_spikes: int = 0  # steps with a NaN or infinite loss or gradient that are left out before the run stops

    def __post_init__(self):
        _check_choice("optimizer.name", self.name, ("adam", "muon"))
        _check_choice("optimizer.schedule", self.schedule, ("cosine", "constant", "wsd"))
        _check(self.skip_spikes >= 0, f"optimizer.skip_spikes={self.skip_spikes} must be 0 (stop at once) or more")
        for name in ("learning_rate", "muon_learning_rate"):
            _check(getattr(self, name) > 0, f"optimizer.{name}={getattr(self, name)} must be positive")
        _check(0 <= self.muon_momentum < 1, f"optimizer.muon_momentum={self.muon_momentum} must lie in [0, 1)")
        _check(self.weight_decay >= 0, f"optimizer.weight_decay={self.weight_decay} must not be negative")
        _check(
            self.name == "muon" or self.weight_decay == 0,
            f"optimizer.weight_decay={self.weight_decay} is Muon's; set optimizer.name=muon, or this to 0",
        )
        _check(0 < self.decay_fraction <= 1, f"optimizer.decay_fraction={self.decay_fraction} must lie in (0, 1]")
        _check(self.warmup_epochs >= 0, f"optimizer.warmup_epochs={self.warmup_epochs} must not be negative")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """Devices along each mesh axis; -1 takes what the other axis leaves."""

    data: int = -1  # batch, parameters and optimizer state
    model: int = 1  # heads and MLP width
    microbatches: int = 1  # parts of a batch taken one after another, their gradients averaged; more need less memory

    def __post_init__(self):
        _check(self.microbatches >= 1, f"parallel.microbatches={self.microbatches} must be at least 1")
        for name in ("data", "model"):
            size = getattr(self, name)
            _check(size == -1 or size >= 1, f"parallel.{name}={size} must be -1 (the rest) or at least 1")
        _check(self.data != -1 or self.model != -1, "parallel.data and parallel.model cannot both be -1; give one")


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """The linear probe: logistic regression on standardized features, one for each layer (paper, section 3.1).

    For "sgd" the paper gives rates, momentum and steps; batch size and weight decay are those of MoCo, whose recipe it
    cites.
    """

    layers: tuple[int, ...] = ()  # feature layers in 0..model.layers; () is all of them
    concatenate: int = 0  # layers about the best one that another probe reads side by side; the paper's XL has 5
    normalized: bool = True  # features after each block's norm, as in the paper; False: before it
    held_out: float = 0.1  # fraction of the training images that chooses strength or rate, and layer
    augmented_epochs: int = 0  # views of a training image, augmented as in training; 0: one, as in evaluation
    solver: str = "lbfgs"  # the paper's for CIFAR and STL-10; "sgd": its for ImageNet
    l2: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # "lbfgs": strengths tried, in units of the mean loss
    rates: tuple[float, ...] = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # "sgd": tried until one does worse
    steps: int = 1_000_000  # "sgd"
    batch_size: int = 256  # "sgd": images a step
    weight_decay: float = 0.0  # "sgd"
    labels_per_class: tuple[int, ...] = ()  # `evaluate` also fits probes to so few; the paper's are (4, 25, 400)
    subsets: int = 5  # random ones of so many labels
    memory: float = 8.0  # GiB of a split's features above which they lie on disk, in the work dir

    def __post_init__(self):
        _check_choice("evaluate.probe.solver", self.solver, ("lbfgs", "sgd"))
        _check(len(self.l2) > 0, "evaluate.probe.l2 is empty; give at least one strength, such as (0.01,)")
        _check(len(self.rates) > 0, "evaluate.probe.rates is empty; give at least one, such as (1.0,)")
        for rate in self.rates:
            _check(rate > 0, f"evaluate.probe.rates has {rate}; a learning rate is positive")
        _check(0 < self.held_out < 1, f"evaluate.probe.held_out={self.held_out} must lie between 0 and 1")
        for name in ("augmented_epochs", "concatenate", "weight_decay", "memory"):
            _check(getattr(self, name) >= 0, f"evaluate.probe.{name}={getattr(self, name)} is negative")
        for name in ("steps", "batch_size"):
            _check(getattr(self, name) >= 1, f"evaluate.probe.{name}={getattr(self, name)} must be at least 1")
        for labels in self.labels_per_class:
            _check(labels >= 1, f"evaluate.probe.labels_per_class has {labels}; give 1 or more")
        _check(self.subsets >= 2, f"evaluate.probe.subsets={self.subsets} must be at least 2, to have a deviation")
        _check(
            self.solver == "lbfgs" or not self.labels_per_class,
            "evaluate.probe.labels_per_class takes its L2 strength from the probe of all images; set solver=lbfgs",
        )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is measured during and after training."""

    every: int = 0  # steps between evaluations; 0 evaluates at the end only
    batch_size: int = 128  # images in one forward pass
    views: int = 1  # times each measured image is seen, placed anew by augmentation "place"; what is measured averages
    split: str = "test"  # the images that are measured: "test", or "validation" while options are being chosen
    votes: int = 5  # "bert": random masks of each image, whose modal prediction is taken (paper: 5)
    probe: ProbeConfig = ProbeConfig()

    def __post_init__(self):
        _check(self.every >= 0, f"evaluate.every={self.every} must be 0 (end only) or more")
        _check(self.batch_size >= 1, f"evaluate.batch_size={self.batch_size} must be at least 1")
        _check(self.views >= 1, f"evaluate.views={self.views} must be at least 1")
        _check(self.votes >= 1, f"evaluate.votes={self.votes} must be at least 1")
        _check_choice("evaluate.split", self.split, ("test", "validation"))


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One run: the seven sections, and what concerns them all."""

    seed: int = 0
    steps: int = 1_000_000
    log_every: int = 50  # steps between lines of metrics
    checkpoint_every: int = 1000  # steps; also before each evaluation and after the last step
    keep_checkpoints: int = 3  # newest ones
    keep_every: int = 0  # steps; those of its multiples stay too; 0: none
    keep_best: str = ""  # a name in BEST: the checkpoint where it was best stays too, and is what the run results in
    stop_after: int = 0  # evaluations without a better `keep_best` after which the run ends; 0: never
    initialize_from: str = ""  # a work dir, Hugging Face directory or OpenAI checkpoint to fine-tune; "": drawn by seed
    # WORKDIR/checkpoints/STEP of a run with the same options and, up to there, learning rates: this one goes on from it
    continue_from: str = ""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    palette: PaletteConfig = PaletteConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def __post_init__(self):
        _check(self.seed >= 0, f"seed={self.seed} must be 0 or more")
        for name in ("steps", "log_every", "checkpoint_every", "keep_checkpoints"):
            _check(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        _check(
            self.model.objective == self.objective.name,
            f"model.objective={self.model.objective!r} but objective.name={self.objective.name!r}; set that one",
        )
        place = pathlib.PurePath(self.continue_from)
        _check(
            not self.continue_from or (place.name.isdecimal() and place.parent.name == "checkpoints"),
            f"continue_from={self.continue_from!r} is no checkpoint; give WORKDIR/checkpoints/STEP",
        )
        _check(
            not (self.continue_from and self.initialize_from),
            "continue_from and initialize_from both say what the run starts from; give one",
        )
        _check(self.keep_every >= 0, f"keep_every={self.keep_every} must be 0 (none) or more")
        _check_choice("keep_best", self.keep_best, ("", *BEST))
        _check(
            not self.keep_best or (self.evaluate.every > 0 and self.evaluate.split == "validation"),
            f"keep_best={self.keep_best!r} needs evaluations during training, on images that may choose; "
            "set evaluate.every, and evaluate.split=validation",
        )
        learns_classes = self.objective.class_weight > 0
        _check(
            self.model.token_head or not learns_classes,
            "model.token_head=False is for loading such weights; train with it: what the weights lack starts at zero",
        )
        _check(
            self.keep_best != ("probe/accuracy" if learns_classes else "validation/accuracy"),
            f"keep_best={self.keep_best!r} is not measured while objective.class_weight="
            f"{self.objective.class_weight:g}; set it to {'validation' if learns_classes else 'probe'}/accuracy",
        )
        _check(self.stop_after >= 0, f"stop_after={self.stop_after} must be 0 (never) or more")
        _check(
            not self.stop_after or bool(self.keep_best),
            f"stop_after={self.stop_after} does not say what is to get better; set keep_best, such as "
            "validation/accuracy",
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
    def from_dict(cls, values: dict) -> "RunConfig":
        """Checks every key and value, of `ConfigDict.to_dict()` or of JSON; `model.objective` may be left out.

        Raises InputError naming the first that cannot work.
        """
        values = {"objective": {}, "model": {}} | values
        for section in ("objective", "model"):
            _check(type(values[section]) is dict, f"{section}={values[section]!r} is no section of keys")
        name = values["objective"].get("name", ObjectiveConfig.name)
        values["model"] = {"objective": name} | values["model"]
        return read_dataclass(cls, values)


def default_config() -> "ml_collections.ConfigDict":
    """A locked ConfigDict of every option at its default; a misspelled key raises.

    It has no `model.objective`, which follows `objective.name`.
    """
    return as_config_dict(RunConfig())


def as_config_dict(config: RunConfig) -> "ml_collections.ConfigDict":
    """The same options as a locked ConfigDict, which flags can override; the inverse of `RunConfig.from_dict`."""
    import ml_collections  # here, so that the model imports without it

    values = dataclasses.asdict(config)
    del values["model"]["objective"]
    return ml_collections.ConfigDict(values).lock()
