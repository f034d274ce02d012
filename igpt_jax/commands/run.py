"""One run made ready: its work dir, data, palette and mesh, checked against each other."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.data import kmeans
from igpt_jax.data.augment import augmentations
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import batches, examples
from igpt_jax.data.sources import Source, load_source
from igpt_jax.errors import InputError
from igpt_jax.evaluate.forward import with_masks
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import check_batch, check_model, make_mesh
from igpt_jax.parallel.processes import batch_share, from_first, is_first, wait_for_all
from igpt_jax.train.optimizer import learning_rate_schedule

# Sections that make a run what it is; the rest may change between two calls of the same run.
FIXED = ("seed", "steps", "model", "data.name", "data.batch_size", "palette", "objective", "optimizer")


@dataclasses.dataclass(frozen=True)
class Run:
    """A config and a work dir that belong together.

    The work dir keeps the config (`config.json`) and palette (`palette.npy`) that it was made with; another config or
    palette is refused.
    """

    config: RunConfig
    workdir: pathlib.Path

    @classmethod
    def open(cls, config: RunConfig, workdir: pathlib.Path) -> "Run":
        """Checks that everything fits together, then claims the work dir.

        Raises InputError, with nothing written, where an option cannot work or the work dir belongs to another run.
        """
        if (workdir / "config.json").exists():
            _check_same(saved_config(workdir), config, workdir)
        run = cls(config, workdir)
        check_model(config.model, run.mesh)
        batch_share(run.mesh)
        check_batch("data.batch_size", config.data.batch_size, run.mesh)
        check_batch("evaluate.batch_size", config.evaluate.batch_size, run.mesh)
        steps_per_epoch = len(run.train) / config.data.batch_size
        learning_rate_schedule(config.optimizer, steps=config.steps, steps_per_epoch=steps_per_epoch)
        palette = run.palette
        run.examples(run.test)
        if is_first():
            workdir.mkdir(parents=True, exist_ok=True)
            (workdir / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
            palette.save(workdir / "palette.npy")
        wait_for_all("the work dir is claimed")
        if not (workdir / "config.json").exists():
            raise InputError(f"process {jax.process_index()} does not see {workdir}; put it where all processes do")
        return run

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices, as `config.parallel` arranges them."""
        return make_mesh(self.config.parallel)

    @functools.cached_property
    def model(self) -> ImageGPT:
        """The network of `config.model`."""
        return ImageGPT(self.config.model)

    @functools.cached_property
    def palette(self) -> Palette:
        """The work dir's palette; at first the file that the config names, or a fit to the training pixels.

        Every process takes the colours that process 0 has.
        """
        path, given = self.workdir / "palette.npy", self.config.palette.path
        chosen = Palette.load(given) if given else None
        if path.exists():
            palette = Palette.load(path)
            if chosen and chosen != palette:
                raise InputError(
                    f"{path} has hash {palette.hash}, but palette.path={given} has {chosen.hash}; use another --workdir"
                )
        else:
            palette = chosen or self._fit_palette()
        if len(palette) != self.config.model.vocabulary:
            raise InputError(
                f"the palette has {len(palette)} colours, but model.vocabulary={self.config.model.vocabulary}; "
                f"set model.vocabulary={len(palette)} or another palette"
            )
        return Palette(from_first(palette.colors))

    def _fit_palette(self):
        pixels = self.train.images.reshape(-1, 3)
        chosen = np.random.default_rng(self.config.seed).permutation(len(pixels))[: self.config.palette.pixels]
        palette, report = kmeans.fit(
            pixels[chosen],
            self.config.model.vocabulary,
            seed=self.config.seed,
            iterations=self.config.palette.iterations,
        )
        if is_first():
            print(
                f"palette: {len(palette)} colours for {len(chosen):,} pixels, "
                f"mean squared error {report.mean_squared_error:.2f}, PSNR {report.psnr:.1f} dB, {report.dead} dead"
            )
        return palette

    @functools.cached_property
    def train(self) -> Source:
        """The training images."""
        return load_source(self.config.data.name, "train", self.config.data.directory)

    @functools.cached_property
    def test(self) -> Source:
        """The test images."""
        return load_source(self.config.data.name, "test", self.config.data.directory)

    def batches_from(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's part of the training batches from a step on."""
        augmentation, _ = augmentations(self.config.data.name, self.config.model.resolution)
        index, count = batch_share(self.mesh)
        return batches(
            self.train,
            self.palette,
            augmentation,
            seed=self.config.seed,
            batch_size=self.config.data.batch_size,
            start_step=step,
            process_index=index,
            process_count=count,
        )

    def examples(self, source: Source, augmented_epochs: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Every image of a source once, augmented as for evaluation, or several times, augmented as for training.

        For a BERT model with the masks of evaluation.
        """
        training, evaluation = augmentations(self.config.data.name, self.config.model.resolution)
        found = examples(
            source,
            self.palette,
            training if augmented_epochs else evaluation,
            batch_size=self.config.evaluate.batch_size,
            epochs=augmented_epochs or 1,
        )
        if self.config.model.causal:
            return found
        return with_masks(found, self.config.objective.mask_rate, self.config.seed)


def saved_config(workdir: pathlib.Path) -> RunConfig:
    """Reads the config that a work dir was made with.  Raises InputError where there is none."""
    path = workdir / "config.json"
    if not path.exists():
        raise InputError(f"{workdir} is not a work dir (no config.json); train one with: python -m igpt_jax train")
    return RunConfig.from_dict(json.loads(path.read_text()))


def _check_same(saved, config, workdir):
    for key in FIXED:
        old, new = (functools.reduce(getattr, key.split("."), c) for c in (saved, config))
        for name, old_value, new_value in _differences(key, old, new):
            raise InputError(
                f"{workdir} was made with {name}={old_value!r}, now it is {new_value!r}; "
                f"use the same value or another --workdir"
            )


def _differences(name, old, new):
    if dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            yield from _differences(f"{name}.{field.name}", getattr(old, field.name), getattr(new, field.name))
    elif old != new:
        yield name, old, new
