"""A run made ready: its config and workdir, and the data, palette, model and mesh that follow from them."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.commands.run_checks import check_palette, check_run, check_saved_config
from igpt_jax.commands.run_palette import choose_palette
from igpt_jax.config import RunConfig
from igpt_jax.data.augment import Augmentation, augmentations
from igpt_jax.data.pipeline import batches, examples, originals
from igpt_jax.data.records import Source, TokenSource
from igpt_jax.data.sources import load_source
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.errors import InputError
from igpt_jax.evaluate.forward import with_masks
from igpt_jax.files import make_directory
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.parallel.processes import barrier, batch_share, is_primary_process
from igpt_jax.progress import track
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.start import checkpoint_place
from igpt_jax.train.state import init_params
from igpt_jax.train.workdir_lock import CONFIG, lock_workdir, read_config, write_config
from igpt_jax.types import HostBatch, Params
from igpt_jax.weights.origin import first_params, open_origin
from igpt_jax.weights.stream import Weights


@dataclasses.dataclass(frozen=True)
class Run:
    """A config and a workdir that belong together.

    The workdir keeps the config (`config.json`) and palette (`palette.npy`) that it was made with; another config or
    palette is refused.
    """

    config: RunConfig
    workdir: pathlib.Path

    @classmethod
    def open(cls, config: RunConfig, workdir: pathlib.Path) -> "Run":
        """Checks that everything fits together.  Writes nothing.

        Where the objective has labels and `model.classes` is 0, it becomes the number of classes of the data.

        Raises:
          InputError: an option cannot work, or the workdir belongs to another run.
        """
        if config.objective.class_weight and not config.model.classes:
            classes = load_source(config.data, "train").classes
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, classes=classes))
        run = cls(config, workdir)
        check_run(run)
        return run

    @contextlib.contextmanager
    def hold_workdir(self) -> Iterator[None]:
        """Makes the workdir this run's, and keeps other runs from writing there for as long as it lasts.

        Raises:
          InputError: another run is writing there now, or came first.
        """
        with contextlib.ExitStack() as stack:
            if is_primary_process():
                make_directory(self.workdir)
                stack.enter_context(lock_workdir(self.workdir))
                check_saved_config(self)
                check_palette(self)
                write_config(self.workdir, self.config, self.palette)
            barrier("the workdir is held")
            if not (self.workdir / CONFIG).exists():
                here = f"process {jax.process_index()}"
                raise InputError(f"{here} does not see {self.workdir}; put it where all processes do")
            yield

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
        """The model that `config.initialize_from` names, or None.  A run that has a checkpoint does not need it."""
        path = self.config.initialize_from
        return open_origin(path, self.config.model) if path else None

    @functools.cached_property
    def continued(self) -> tuple[RunConfig, Tokenizer]:
        """The config and palette of the checkpoint that `config.continue_from` names.

        Raises:
          InputError: there is no such checkpoint.
        """
        workdir, step = checkpoint_place(self.config.continue_from)
        with contextlib.closing(Checkpoints(workdir)) as checkpoints:
            if step not in checkpoints.steps:
                raise InputError(
                    f"continue_from={self.config.continue_from} is not there; {workdir} has the checkpoints "
                    f"{', '.join(map(str, checkpoints.steps)) or 'of no step'}: name one of them"
                )
            return checkpoints.about(step)

    def initial_params(self) -> Params:
        """The parameters of step 0: the origin's with a new class head, or drawn by the seed."""
        if self.origin:
            return first_params(self.origin, self.config.model, self.mesh, self.config.seed)
        return init_params(self.model, self.config.seed, self.mesh)

    @functools.cached_property
    def palette(self) -> Tokenizer:
        """The palette of the tokens, or their codec; see `choose_palette`."""
        return choose_palette(self)

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
        return augmentations(self.config.data, self.config.model.resolution * self.palette.scale)

    @property
    def training_images_vary(self) -> bool:
        """Whether a training image looks different every time that it is seen."""
        return _varies(self.train_source, self._augmentations[0])

    @property
    def evaluation_images_vary(self) -> bool:
        """Whether an image of `test_source` looks different every time that it is seen."""
        return _varies(self.test_source, self._augmentations[1])

    def batches_from(self, step: int) -> Iterator[HostBatch]:
        """This process's part of the training batches, from a 0-based step on."""
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
        self, source: Source, augmented_epochs: int = 0, *, views: int = 1, draw: int = 0, task: str = ""
    ) -> Iterator[HostBatch]:
        """Yields every image of a source, in batches of `config.evaluate.batch_size`.

        Args:
          source: the images.
          augmented_epochs: how often each image is seen, augmented anew as for training; 0 augments as for evaluation.
          views: how often each image is seen where it is augmented as for evaluation.  One pass over the source
            follows the other; view i of an image is a function of its place in the source and i.
          draw: for a BERT model, which has the masks of evaluation, one for each image and view: other draws have
            other masks, independent of each other.
          task: what the examples are for, such as "features"; shown with the progress.  Empty shows nothing.
        """
        training, evaluation = self._augmentations
        epochs = augmented_epochs or views
        batches = examples(
            source,
            self.palette,
            training if augmented_epochs else evaluation,
            batch_size=self.config.evaluate.batch_size,
            epochs=epochs,
            max_skipped=self.config.data.tolerated,
        )
        if task:
            batches = track(batches, task, len(source) * epochs, "image", lambda batch: len(batch["tokens"]))
        if self.config.model.causal:
            return batches
        return with_masks(batches, self.config.objective.mask_rate, self.config.seed, draw)

    def test_examples(self, draw: int = 0, task: str = "") -> Iterator[HostBatch]:
        """Yields what is measured: every image of `test_source`, in each of its `evaluate.views`; see `examples`."""
        return self.examples(self.test_source, views=self.config.evaluate.views, draw=draw, task=task)

    @property
    def masks(self) -> int:
        """How many masks of every view of a test image a BERT model votes over; 1 without masks."""
        return 1 if self.config.model.causal else self.config.evaluate.votes

    def pictures(self, n: int) -> np.ndarray:
        """The first n evaluation images as they are encoded, (n, r, r, 3) uint8; of tokens, what they decode to."""
        if isinstance(self.test_source, TokenSource):
            return self.palette.decode(self.test_source.read(np.arange(min(n, len(self.test_source)))))
        stream = originals(
            self.test_source, self._augmentations[1], batch_size=n, max_skipped=self.config.data.tolerated
        )
        return next(stream)["image"]


def saved_config(workdir: pathlib.Path) -> RunConfig:
    """Reads the config that a workdir was made with.

    Raises:
      InputError: there is none.
    """
    config, _ = read_config(workdir)
    return config


def _varies(source: Source, augmentation: Augmentation) -> bool:
    return source.is_random or (augmentation.is_random and not isinstance(source, TokenSource))
