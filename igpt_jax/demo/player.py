"""What the page shows of one model: completions as they appear, surprise, and the nearest training images."""

import dataclasses
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.evaluate.likelihood import likelihood
from igpt_jax.generate.infill import infill
from igpt_jax.generate.quality import nearest
from igpt_jax.generate.rows import complete_by_rows
from igpt_jax.generate.sample import Sampler
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.report.sheets import GRAY, to_pixels
from igpt_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Player:
    """A model, and the images that it is shown beside."""

    model: ImageGPT
    params: Params
    palette: Tokenizer
    mesh: Mesh
    examples: np.ndarray  # (m, r, r, 3) uint8: held-out images to try; none with weights alone
    train: np.ndarray  # (n, r, r, 3) uint8: training images to compare with; none with weights alone

    @property
    def resolution(self) -> int:
        """Rows of tokens in an image: of pixels, or of a codec's codes."""
        return self.model.config.resolution

    @property
    def causal(self) -> bool:
        """Whether the model completes what is below given rows; otherwise it fills a square."""
        return self.model.config.causal

    def shrink(self, picture: np.ndarray) -> np.ndarray:
        """Brings the central square of a picture to the model's resolution and colors.

        Args:
          picture: (h, w, 4) uint8 RGBA; what is transparent becomes white.

        Returns:
          (r, r, 3) uint8 RGB.
        """
        image = Image.fromarray(picture)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        paper = Image.new("RGBA", image.size, "white")
        square = Image.alpha_composite(paper, image).convert("RGB").crop((left, top, left + side, top + side))
        shrunk = np.asarray(square.resize((self.pixels, self.pixels), Image.Resampling.BOX))
        return self.palette.decode(self.palette.encode(shrunk[None]))[0]

    def complete(self, image: np.ndarray, given: int, n: int, sampler: Sampler, seed: int) -> Iterator[np.ndarray]:
        """Yields n completions of an image as they appear; pixels that are not there yet are gray.

        Args:
          image: (r, r, 3) uint8 RGB.
          given: rows given at the top, 0 to r - 1; for a BERT model, the square hidden in the middle has r - `given`
            pixels a side.
          n: number of completions.
          sampler: how colors are sampled.
          seed: of the random numbers.

        Yields:
          (n, r, r, 3) uint8 RGB.
        """
        tokens_t = self.palette.encode(image[None])[0]
        if self.causal:
            given_t = tokens_t[: given * self.resolution]
            rows = complete_by_rows(self.model, self.params, given_t, n=n, seed=seed, sampler=sampler)
            for known, tokens_nt in enumerate(rows, start=given + 1):
                pictures = self.palette.decode(tokens_nt)
                pictures[:, known * self.palette.scale :] = GRAY
                yield pictures
        else:
            hidden_bt = self.hidden(given).reshape(1, -1)
            tokens_bnt = infill(
                self.model, self.params, tokens_t[None], hidden_bt, n=n, seed=seed, mesh=self.mesh, sampler=sampler
            )
            yield self.palette.decode(tokens_bnt[0])

    def hidden(self, given: int) -> np.ndarray:
        """Returns which tokens the model does not see, (r, r) bool; see `complete`."""
        hidden = np.zeros((self.resolution, self.resolution), bool)
        if self.causal:
            hidden[given:] = True
        else:
            middle = slice(given // 2, given // 2 + self.resolution - given)
            hidden[middle, middle] = True
        return hidden

    def hide(self, image: np.ndarray, given: int) -> np.ndarray:
        """Returns an image of the model's size with gray in place of what the model does not see; see `complete`."""
        (hidden,) = to_pixels(self.hidden(given).reshape(1, -1), image.shape[0])
        return np.where(hidden[..., None], GRAY, image)

    @property
    def pixels(self) -> int:
        """Side of its images, in pixels."""
        return self.resolution * self.palette.scale

    def surprise(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes how surprising every pixel of an image is.

        Args:
          image: (r, r, 3) uint8 RGB.

        Returns:
          -log p in nats, of every pixel or of the code that it belongs to, (r, r) float32; and a map of it, (r, r, 3)
          uint8 RGB, where brighter is more surprising.
        """
        tokens_bt = self.palette.encode(image[None])
        (nats,) = to_pixels(likelihood(self.model, self.params, tokens_bt, mesh=self.mesh), image.shape[0])
        return nats, mpl.colormaps["inferno"](nats / nats.max(), bytes=True)[..., :3]

    def neighbors(self, images: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Finds the nearest training image of each image, and its distance; an empty list without training images.

        Args:
          images: (n, r, r, 3) uint8 RGB.

        Returns:
          For each image, (r, r, 3) uint8 RGB, and the root mean square difference, 0 to 255.
        """
        if not len(self.train):
            return []
        distances, indices = nearest(images, self.train)
        return [(self.train[i], float(distance)) for i, distance in zip(indices, distances, strict=True)]
