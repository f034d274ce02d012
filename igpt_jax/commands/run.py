"""One run made ready: its work dir, data, palette and mesh, checked against each other."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.data import kmeans
from igpt_jax.data.augment import Augmentation, augmentations
from igpt_jax.data.colors import count_colors
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import batches, examples, originals
from igpt_jax.data.records import Source, TokenSource
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError
from igpt_jax.evaluate.forward import with_masks
from igpt_jax.files import make_directory
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import check_batch, check_model, make_mesh
from igpt_jax.parallel.processes import barrier, batch_share, broadcast_from_primary, is_primary_process
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.optimizer import learning_rate_schedule
from igpt_jax.train.start import checkpoint_place
from igpt_jax.train.state import init_params
from igpt_jax.train.workdir_lock import CONFIG, PALETTE, lock_workdir, read_config, write_config
from igpt_jax.weights.origin import first_params, open_origin
from igpt_jax.weights.stream import Weights

# Sections that make a run what it is; the rest may change between two calls of the same run.
FIXED = (
    *("seed", "steps", "initialize_from", "continue_from", "model", "palette", "objective", "optimizer"),
    *(f"data.{key}" for key in ("name", "batch_size", "augmentation", "filter", "fold_validation", "emoji")),
)
FREE = ("optimizer.skip_spikes",)
# What may differ from the run that is continued, as long as the learning rates up to there do not.
OF_SCHEDULE = ("steps", "initialize_from", "continue_from", "optimizer.schedule", "optimizer.decay_fraction")


# What to do for a run that is to go on, whose learning rate was to end where it did.
MORE_STEPS = (
    "to train for longer, use another --workdir with --config.initialize_from=WORKDIR, which takes the weights; or, "
    "where optimizer.schedule is wsd or constant, with --config.continue_from=WORKDIR/checkpoints/STEP, which goes on "
    "as if it had never ended"
)


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
        """Checks that everything fits together; writes nothing.

        Where the objective has labels and `model.classes` is 0, it becomes what the data have.

        Raises InputError where an option cannot work or the work dir belongs to another run.
        """
        if config.objective.class_weight and not config.model.classes:
            classes = load_source(config.data, "train").classes
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, classes=classes))
        run = cls(config, workdir)
        run._check_saved_config()
        run._check_classes()
        check_model(config.model, run.mesh)
        batch_share(run.mesh)
        check_batch("data.batch_size", config.data.batch_size, run.mesh, config.parallel.microbatches)
        check_batch("evaluate.batch_size", config.evaluate.batch_size, run.mesh)
        run._schedule(config)
        run._check_continued()
        run._check_views()
        run._check_palette()
        run.test_examples()
        return run

    @contextlib.contextmanager
    def hold_workdir(self) -> Iterator[None]:
        """Makes the work dir this run's, and keeps others from writing there for as long as it lasts.

        Raises InputError where another run writes there now, or came first.
        """
        with contextlib.ExitStack() as stack:
            if is_primary_process():
                make_directory(self.workdir)
                stack.enter_context(lock_workdir(self.workdir))
                self._check_saved_config()
                self._check_palette()
                write_config(self.workdir, self.config, self.palette)
            barrier("the work dir is claimed")
            if not (self.workdir / CONFIG).exists():
                here = f"process {jax.process_index()}"
                raise InputError(f"{here} does not see {self.workdir}; put it where all processes do")
            yield

    def _check_saved_config(self):
        if (self.workdir / CONFIG).exists():
            _check_same(saved_config(self.workdir), self.config, self.workdir)

    def _schedule(self, config):
        steps_per_epoch = len(self.train_source) / config.data.batch_size
        return learning_rate_schedule(config.optimizer, steps=config.steps, steps_per_epoch=steps_per_epoch)

    @functools.cached_property
    def _continued(self) -> tuple[RunConfig, Palette]:
        """The config and palette of the checkpoint that the run goes on from."""
        workdir, step = checkpoint_place(self.config.continue_from)
        with contextlib.closing(Checkpoints(workdir)) as checkpoints:
            if step not in checkpoints.steps:
                raise InputError(
                    f"continue_from={self.config.continue_from} is not there; {workdir} has the checkpoints "
                    f"{', '.join(map(str, checkpoints.steps)) or 'of no step'}: name one of them"
                )
            return checkpoints.about(step)

    def _check_continued(self):
        path = self.config.continue_from
        if not path:
            return
        config, _ = self._continued
        _, step = checkpoint_place(path)
        _check_same(config, self.config, path, free=FREE + OF_SCHEDULE)
        if step >= self.config.steps:
            raise InputError(f"continue_from={path} has taken {step} steps, and steps={self.config.steps}; raise steps")
        before, now = (jax.vmap(self._schedule(c))(jnp.arange(step)) for c in (config, self.config))
        if (before != now).any():
            raise InputError(
                f"continue_from={path} was trained with learning rates that this run does not have before its step "
                f"{step}; name a checkpoint before the decay, with optimizer.schedule=wsd or constant"
            )

    def _check_classes(self):
        name, weight, classes = self.config.data.name, self.config.objective.class_weight, self.config.model.classes
        if (weight or classes) and not self.train_source.classes:
            raise InputError(
                f"data.name={name} has no labels, and objective.class_weight={weight:g} with model.classes={classes} "
                "needs them; give each class a sub-folder, or set both to 0"
            )
        if classes and self.train_source.classes != classes:
            raise InputError(
                f"data.name={name} has {self.train_source.classes} classes, but model.classes={classes}; set "
                "model.classes=0 to have them counted"
            )

    def _check_palette(self):
        found = self.palette.hash
        if (self.workdir / CONFIG).exists():
            _, claimed = read_config(self.workdir)
            if found != claimed:
                raise InputError(
                    f"{self.workdir / PALETTE} has hash {found}, but the run was made with {claimed}; the file is "
                    f"damaged or another: delete it to have the colors fitted again, or restore it"
                )

    def _check_views(self):
        views, name = self.config.evaluate.views, self.config.data.name
        augmented = not isinstance(self.test_source, TokenSource) and self._augmentations[1].is_random
        if views > 1 and not (augmented or self.test_source.is_random):
            raise InputError(
                f"evaluate.views={views}, but an evaluation image of data.name={name} looks the same every time; set "
                "evaluate.views=1"
            )

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices, as `config.parallel` arranges them."""
        return make_mesh(self.config.parallel)

    @functools.cached_property
    def model(self) -> ImageGPT:
        """The network of `config.model`."""
        return ImageGPT(self.config.model)

    @functools.cached_property
    def origin(self) -> Weights | None:
        """What the run starts from, if it is another model.  A run that has a checkpoint does not need it."""
        path = self.config.initialize_from
        return open_origin(path, self.config.model) if path else None

    def initial_params(self) -> dict:
        """The parameters of step 0: the origin's with a new class head, or drawn by the seed."""
        if self.origin:
            return first_params(self.origin, self.config.model, self.mesh, self.config.seed)
        return init_params(self.model, self.config.seed, self.mesh)

    @functools.cached_property
    def palette(self) -> Palette:
        """The work dir's palette; at first the origin's, the file that the config names, or a fit to training pixels.

        Every process takes the colors that process 0 has.
        """
        path, given = self.workdir / PALETTE, self.config.palette.path
        known = {}
        if path.exists():
            known[str(path)] = Palette.load(path)
        claimed = path.exists() and (self.workdir / CONFIG).exists()
        if not claimed and self.origin and self.origin.palette:
            known[f"initialize_from={self.config.initialize_from}"] = self.origin.palette
        if not claimed and self.config.continue_from:
            _, known[f"continue_from={self.config.continue_from}"] = self._continued
        if isinstance(self.train_source, TokenSource) and self.train_source.palette:
            known[self.config.data.name] = self.train_source.palette
        if given:
            known[f"palette.path={given}"] = Palette.load(given)
        (name, palette), *others = known.items() or [("the fit", self._fit_palette())]
        for other, colors in others:
            if colors != palette:
                raise InputError(
                    f"{name} has the palette {palette.hash}, but {other} has {colors.hash}; use one palette for both, "
                    "and another --workdir for another palette"
                )
        if len(palette) != self.config.model.vocabulary:
            raise InputError(
                f"the palette has {len(palette)} colors, but model.vocabulary={self.config.model.vocabulary}; "
                f"set model.vocabulary={len(palette)} or another palette"
            )
        agreed = Palette(broadcast_from_primary(palette.colors))
        return palette if agreed == palette else agreed  # the one that was loaded knows where its table lies

    def _fit_palette(self):
        if self.origin:
            raise InputError(
                f"initialize_from={self.config.initialize_from} does not say which colors its tokens are; set "
                "palette.path, such as to kmeans_centers.npy"
            )
        if isinstance(self.train_source, TokenSource):
            raise InputError(
                f"data.name={self.config.data.name} does not say which colors its tokens are; set palette.path"
            )
        colors, counts = count_colors(
            self.train_source,
            self._augmentations[1],
            pixels=self.config.palette.pixels,
            seed=self.config.seed,
            max_skipped=self.config.data.tolerated,
        )
        palette, report = kmeans.fit(
            colors,
            self.config.model.vocabulary,
            counts=counts,
            seed=self.config.seed,
            iterations=self.config.palette.iterations,
        )
        if is_primary_process():
            print(f"palette: {report.describe(palette)}")
        return palette

    @functools.cached_property
    def train_source(self) -> Source:
        """The training images."""
        return load_source(self.config.data, "train")

    @functools.cached_property
    def test_source(self) -> Source:
        """The images of `config.evaluate.split`."""
        return load_source(self.config.data, self.config.evaluate.split)

    @functools.cached_property
    def _augmentations(self) -> tuple[Augmentation, Augmentation]:
        return augmentations(self.config.data, self.config.model.resolution)

    def batches_from(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's part of the training batches from a step on."""
        index, count = batch_share(self.mesh)
        return batches(
            self.train_source,
            self.palette,
            self._augmentations[0],
            seed=self.config.seed,
            batch_size=self.config.data.batch_size,
            start_step=step,
            process_index=index,
            process_count=count,
            max_skipped=self.config.data.tolerated,
        )

    def examples(
        self, source: Source, augmented_epochs: int = 0, *, views: int = 1, draw: int = 0
    ) -> Iterator[dict[str, np.ndarray]]:
        """Every image of a source `views` times, augmented as for evaluation, or several times, as for training.

        One view follows the other; view i of an image is a function of its place in the source and i.  For a BERT model
        with the masks of evaluation, one for each image and view; another `draw` has others, independent of them.
        """
        training, evaluation = self._augmentations
        found = examples(
            source,
            self.palette,
            training if augmented_epochs else evaluation,
            batch_size=self.config.evaluate.batch_size,
            epochs=augmented_epochs or views,
            max_skipped=self.config.data.tolerated,
        )
        if self.config.model.causal:
            return found
        return with_masks(found, self.config.objective.mask_rate, self.config.seed, draw)

    def test_examples(self, draw: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """What is measured: every image of `test_source`, in each of its `evaluate.views`, as `examples` has them."""
        return self.examples(self.test_source, views=self.config.evaluate.views, draw=draw)

    @property
    def masks(self) -> int:
        """How many masks of every view of a test image a BERT model votes over; 1 without masks."""
        return 1 if self.config.model.causal else self.config.evaluate.votes

    def pictures(self, n: int) -> np.ndarray:
        """The first n evaluation images at the model's resolution, (n, r, r, 3) uint8; of tokens, their colors."""
        if isinstance(self.test_source, TokenSource):
            return self.palette.decode(next(self.examples(self.test_source))["tokens"][:n])
        stream = originals(
            self.test_source, self._augmentations[1], batch_size=n, max_skipped=self.config.data.tolerated
        )
        return next(stream)["image"]


def saved_config(workdir: pathlib.Path) -> RunConfig:
    """Reads the config that a work dir was made with.  Raises InputError where there is none."""
    config, _ = read_config(workdir)
    return config


def _check_same(saved, config, where, free=FREE):
    for key in FIXED:
        old, new = (functools.reduce(getattr, key.split("."), c) for c in (saved, config))
        for name, old_value, new_value in _differences(key, old, new):
            if name not in free:
                remedy = MORE_STEPS if name == "steps" else "use the same value or another --workdir"
                raise InputError(f"{where} was made with {name}={old_value!r}, now it is {new_value!r}; {remedy}")


def _differences(name, old, new):
    if dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            yield from _differences(f"{name}.{field.name}", getattr(old, field.name), getattr(new, field.name))
    elif old != new:
        yield name, old, new
