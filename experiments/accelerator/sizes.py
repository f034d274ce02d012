"""The networks, batches and lengths to measure; and tiny ones of the same kinds, for a rehearsal."""

import dataclasses

from igpt_jax.config import SIZES, ModelConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the parts measure; tuples list the most important entries first."""

    models: dict[str, ModelConfig]
    trained: tuple[tuple[str, str, bool], ...]  # network, `remat`, whether the scan over layers is unrolled
    attention: tuple[tuple[int, int], ...]  # (positions, head dim)
    steps: int  # of the loss curve
    images: int  # at most so many in a training batch
    peer_images: dict[str, int]  # images in torch's training batch
    first_images: int  # memory is planned for so many and for twice as many, to see how it grows
    learning_steps: int  # of training, before S samples images
    drawn: tuple[tuple[str, int, int], ...]  # network, images in a batch, positions in a pass
    peer_drawn: tuple[int, ...]  # images in a batch that peers sample
    peer_tokens: int  # positions of each image that peers sample
    race_images: int  # in a batch, when torch and the modern recipe train S to a loss
    race_steps: int  # of torch there
    modern_steps: tuple[int, ...]  # of the modern recipe there
    features: int  # images in a forward pass for features
    probe: tuple[int, int]  # images and width of a probe's features
    repeats: int  # how many calls are timed


FULL = Sizes(
    models={name: dataclasses.replace(SIZES[name.lower()], dtype="bfloat16") for name in "SML"},
    trained=(
        *(("L", "dots", False), ("S", "dots", False), ("M", "dots", False), ("S", "dots", True)),
        *(("L", "dots", True), ("S", "none", True), ("M", "dots", True), ("L", "none", True)),
        *(("L", "attention", False), ("L", "full", False), ("L", "none", False), ("S", "none", False)),
        *(("S", "attention", False), ("S", "full", False), ("M", "none", True), ("M", "attention", False)),
    ),
    attention=((1024, 64), (961, 96), (1023, 128), (2304, 32)),
    steps=200,
    images=128,
    peer_images={"S": 128, "L": 16},
    first_images=8,
    learning_steps=100,
    drawn=(
        *(("S", 8, 1), ("S", 8, 16), ("S", 64, 1), ("S", 1, 1)),
        *(("S", 1, 16), ("S", 64, 8), ("L", 8, 1), ("S", 8, 32)),
        *(("L", 64, 1), ("L", 1, 1), ("S", 256, 1), ("S", 8, 8)),
    ),
    peer_drawn=(8, 64),
    peer_tokens=64,
    race_images=64,
    race_steps=300,
    modern_steps=(100, 75, 150, 50),
    features=64,
    probe=(45_000, 1536),
    repeats=3,
)
_TINY_MODEL = ModelConfig(layers=2, width=32, heads=2, resolution=6, vocabulary=16, dtype="bfloat16")
TINY = Sizes(
    models={"S": _TINY_MODEL, "L": dataclasses.replace(_TINY_MODEL, layers=3)},
    trained=(("L", "dots", True), ("S", "none", False)),
    attention=((128, 32),),
    steps=20,
    images=4,
    peer_images={"S": 4, "L": 2},
    first_images=2,
    learning_steps=10,
    drawn=(("S", 2, 1), ("S", 2, 4), ("L", 1, 1)),
    peer_drawn=(2,),
    peer_tokens=8,
    race_images=4,
    race_steps=12,
    modern_steps=(4,),
    features=4,
    probe=(300, 16),
    repeats=1,
)
