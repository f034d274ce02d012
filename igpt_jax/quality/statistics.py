"""Mean and covariance of the features of a set of images, and their file format."""

import dataclasses
import pathlib

import numpy as np

from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a Fréchet distance needs to know about a set of images.

    Attributes:
      mean_d: of the features, (d,) float64.
      covariance_dd: of the features, (d, d) float64; the unbiased estimate.
      images: how many there were; 0 if a file does not say.
      network: which network computed the features, and how images were resized for it; "" if a file does not say.
    """

    mean_d: np.ndarray
    covariance_dd: np.ndarray
    images: int = 0
    network: str = ""

    @classmethod
    def of(cls, features_bd: np.ndarray, network: str) -> "Statistics":
        """Computes statistics in float64.

        Args:
          features_bd: (b, d), any float type.
          network: the name of the network that computed them.

        Raises:
          InputError: there are fewer than two images.
        """
        if len(features_bd) < 2:
            raise InputError(f"{len(features_bd)} image has no covariance; give more")
        features_bd = features_bd.astype(np.float64)
        return cls(features_bd.mean(axis=0), np.cov(features_bd, rowvar=False), len(features_bd), network)

    def save(self, path: pathlib.Path) -> None:
        """Writes an .npz of `mu`, `sigma`, `images` and `network`, of which pytorch-fid reads the first two."""
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, mu=self.mean_d, sigma=self.covariance_dd, images=self.images, network=self.network)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Statistics":
        """Reads a file of `save`, of pytorch-fid, or of OpenAI's reference batches.

        Raises:
          InputError: the file holds no such statistics.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                mean_d, covariance_dd = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
                images = int(arrays["images"]) if "images" in arrays else 0
                network = str(arrays["network"]) if "network" in arrays else ""
        except Exception as error:  # numpy reads the header with Python's parser, which raises many types
            raise InputError(f"{path} holds no statistics, mu and sigma ({error}); make them again") from error
        if mean_d.ndim != 1 or covariance_dd.shape != mean_d.shape * 2:
            raise InputError(f"{path}: mu and sigma have shapes {mean_d.shape} and {covariance_dd.shape}")
        return cls(mean_d, covariance_dd, images, network)
