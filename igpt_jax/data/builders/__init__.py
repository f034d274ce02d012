"""TFDS builders of the two data sets that scikit-learn carries: they prepare without a network."""

from igpt_jax.data.builders.digits import Digits
from igpt_jax.data.builders.photos import Photos

__all__ = ["Digits", "Photos"]
