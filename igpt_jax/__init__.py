"""Image GPT in JAX: `import igpt_jax as ig`.

The public names are imported on first use, so that importing the package, or `--help`, takes no time.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ImageGPT": "igpt_jax.model.image_gpt",
    "ModelConfig": "igpt_jax.config",
    "SIZES": "igpt_jax.config",
    "Palette": "igpt_jax.data.palette",
    "InputError": "igpt_jax.errors",
    "load": "igpt_jax.weights.load",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'igpt_jax' has no attribute {name!r}; it offers {', '.join(_HOME)}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
