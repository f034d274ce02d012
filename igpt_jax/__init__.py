"""Image GPT in JAX: `import igpt_jax as ig`.

The public names are imported on first use, so that importing the package, or `--help`, takes no time.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load_images": "igpt_jax.api",
    "fit_palette": "igpt_jax.api",
    "pretrain": "igpt_jax.api",
    "sample": "igpt_jax.api",
    "complete": "igpt_jax.api",
    "likelihood": "igpt_jax.api",
    "features": "igpt_jax.api",
    "probe": "igpt_jax.api",
    "save": "igpt_jax.api",
    "export": "igpt_jax.api",
    "load": "igpt_jax.weights.load",
    "convert": "igpt_jax.weights.convert",
    "Pretrained": "igpt_jax.weights.load",
    "Palette": "igpt_jax.data.palette",
    "Codec": "igpt_jax.codes.codec",
    "ImageGPT": "igpt_jax.model.image_gpt",
    "ModelConfig": "igpt_jax.config",
    "ProbeConfig": "igpt_jax.config",
    "SIZES": "igpt_jax.config",
    "InputError": "igpt_jax.errors",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'igpt_jax' has no attribute {name!r}; it offers {', '.join(_HOME)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
