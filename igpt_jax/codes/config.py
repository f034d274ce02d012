"""Every option of a codec and of its training."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from igpt_jax.config import DataConfig
from igpt_jax.errors import InputError
from igpt_jax.typed import read_dataclass

if TYPE_CHECKING:
    import ml_collections

PATCH = 4  # side of the patches that the first layer reads, in pixels
QUANTIZERS = ("fsq", "vq")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """The shape of a codec; equal configs give interchangeable parameters.

    A picture of R x R pixels becomes (R / factor)^2 codes.  The default is shallow and has a small receptive field, as
    the paper's (ICML version, section on VQ-VAE encodings).
    """

    factor: int = 8  # pixels along the side of a code: 4, 8 or 16
    quantizer: str = "fsq"  # "fsq": a fixed grid of values (Mentzer et al. 2023); "vq": a learned codebook (VQ-VAE)
    levels: tuple[int, ...] = (8, 8, 8)  # "fsq": values of each dimension; their product is the number of codes
    codes: int = 512  # "vq": size of the codebook
    code_width: int = 16  # "vq": dimension of its vectors
    width: int = 64  # channels at a quarter of the resolution; twice as many at each halving after that
    blocks: int = 2  # residual blocks at each resolution, in the encoder and in the decoder

    def __post_init__(self) -> None:
        if self.factor not in (4, 8, 16):
            raise InputError(f"network.factor={self.factor} is not 4, 8 or 16; choose one of them")
        if self.quantizer not in QUANTIZERS:
            raise InputError(f"network.quantizer={self.quantizer!r} is none of {', '.join(QUANTIZERS)}; choose one")
        for name in ("width", "codes", "code_width"):
            if getattr(self, name) < 1:
                raise InputError(f"network.{name}={getattr(self, name)} must be at least 1")
        if self.blocks < 0:
            raise InputError(f"network.blocks={self.blocks} must be at least 0 (none)")
        if not self.levels or min(self.levels) < 2 or self.vocabulary > 65536:
            raise InputError(
                f"network.levels={self.levels}, codes={self.codes}: give each dimension at least 2 levels, and at most "
                "65,536 codes"
            )

    @property
    def vocabulary(self) -> int:
        """The number of different codes."""
        return math.prod(self.levels) if self.quantizer == "fsq" else self.codes

    @property
    def latent_width(self) -> int:
        """The number of values that are quantized to one code."""
        return len(self.levels) if self.quantizer == "fsq" else self.code_width

    @property
    def stages(self) -> int:
        """How often the resolution is halved after the patches."""
        return round(math.log2(self.factor // PATCH))


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """The training of a codec."""

    seed: int = 0  # of all random numbers
    steps: int = 10_000
    resolution: int = 128  # side of the pictures, in pixels
    learning_rate: float = 2e-3  # Adam's peak, after a warm-up of a twentieth of the steps; then a cosine to 0
    muon_learning_rate: float = 0.02  # peak of Muon, which updates the kernels between hidden layers
    commitment: float = 0.25  # "vq": weight of the loss that keeps latents near their code vectors
    decay: float = 0.99  # "vq": of the moving averages that the code vectors are
    log_every: int = 50
    checkpoint_every: int = 1000
    network: NetworkConfig = NetworkConfig()
    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(name="emoji", batch_size=16))

    def __post_init__(self) -> None:
        for name in ("steps", "resolution", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.seed < 0:
            raise InputError(f"seed={self.seed} must be at least 0")
        if self.resolution % self.network.factor:
            near = max(1, round(self.resolution / self.network.factor)) * self.network.factor
            raise InputError(
                f"resolution={self.resolution} is no multiple of network.factor={self.network.factor}; set it to {near}"
            )
        for name in ("learning_rate", "muon_learning_rate"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}={getattr(self, name)} must be positive")
        if self.commitment < 0 or not 0 < self.decay < 1:
            raise InputError(f"commitment={self.commitment} must be at least 0, and decay={self.decay} in (0, 1)")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CodecConfig":
        """Builds a config from nested dicts, and checks every key and value.

        Raises:
          InputError: a key is unknown, or a value cannot work; the message names the first such option.
        """
        return read_dataclass(cls, values)


def default_codec_config() -> "ml_collections.ConfigDict":
    """Returns a locked ConfigDict of every option at its default; setting a misspelled key raises AttributeError."""
    import ml_collections  # not at the top of the file, so that the codec imports without it

    return ml_collections.ConfigDict(dataclasses.asdict(CodecConfig())).lock()
