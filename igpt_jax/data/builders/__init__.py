"""TFDS builders of the data sets that need no download: they prepare from installed packages and fonts."""

from igpt_jax.data.builders.digits import Digits
from igpt_jax.data.builders.emoji import Emoji, describe_emoji

__all__ = ["Digits", "Emoji", "describe_emoji"]
