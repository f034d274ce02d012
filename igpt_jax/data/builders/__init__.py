"""TFDS builders of data sets that need no download, because installed packages and fonts provide them."""

from igpt_jax.data.builders.digits import Digits
from igpt_jax.data.builders.emoji import Emoji, describe_emoji

__all__ = ["Digits", "Emoji", "describe_emoji"]
