"""The networks, batches and lengths that are measured, and tiny ones of the same kinds for the rehearsal."""

import dataclasses

from igpt_jax.config import SIZES, ModelConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the parts measure."""

    models: dict[str, ModelConfig]
    attention: tuple[tuple[int, int], ...]  # (positions, head dim)
    steps: int  # of the loss curve
    images: int  # most images in a training batch
    first_images: int  # two such batches tell how memory grows
    drawn: tuple[int, ...]  # images drawn at once, in order of worth
    peer_tokens: int  # positions that a peer draws of each image
    features: int  # images in a forward pass for features
    probe: tuple[int, int]  # images and width of a probe's features
    repeats: int  # timed calls


FULL = Sizes(
    models={name: dataclasses.replace(SIZES[name.lower()], dtype="bfloat16") for name in "SML"},
    attention=((1024, 64), (961, 96), (1023, 128), (2304, 32)),
    steps=200,
    images=128,
    first_images=8,
    drawn=(8, 64, 1, 256),
    peer_tokens=64,
    features=64,
    probe=(45_000, 1536),
    repeats=5,
)
_TINY_MODEL = ModelConfig(layers=2, width=32, heads=2, resolution=6, vocabulary=16, dtype="bfloat16")
TINY = Sizes(
    models={"S": _TINY_MODEL, "L": dataclasses.replace(_TINY_MODEL, layers=3)},
    attention=((128, 32), (81, 64)),
    steps=20,
    images=4,
    first_images=2,
    drawn=(2, 1),
    peer_tokens=8,
    features=4,
    probe=(300, 16),
    repeats=1,
)
