"""What must fit together before a run begins: its options, its data, and the workdir that it goes on in."""

import dataclasses
import functools
import importlib.util
import pathlib
import typing
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax

from igpt_jax.config import RunConfig
from igpt_jax.data.tokenizer import tokenizer_file
from igpt_jax.errors import InputError
from igpt_jax.parallel.mesh import check_batch, check_model
from igpt_jax.parallel.processes import batch_share
from igpt_jax.train.optimizer import learning_rate_schedule
from igpt_jax.train.start import checkpoint_place
from igpt_jax.train.workdir_lock import CONFIG, read_config

if typing.TYPE_CHECKING:
    from igpt_jax.commands.run import Run

# Sections and options that make a run what it is.  The others may change between two calls of the same run.
FIXED_DATA = tuple(
    f"data.{key}" for key in ("name", "batch_size", "augmentation", "filter", "fold_validation", "emoji")
)
FIXED = (
    *("seed", "steps", "initialize_from", "continue_from", "model", "palette", "objective", "optimizer"),
    *FIXED_DATA,
)
FREE = ("optimizer.skip_spikes", "model.attention", "model.remat", "model.unroll")
# What may differ from the run that `continue_from` names, as long as the learning rates before its step are the same.
FREE_WHEN_CONTINUED = ("steps", "initialize_from", "continue_from", "optimizer.schedule", "optimizer.decay_fraction")
HOW_TO_TRAIN_LONGER = (
    "to train for longer, use another --workdir with --config.initialize_from=WORKDIR, which takes the weights; or, "
    "where optimizer.schedule is wsd or constant, with --config.continue_from=WORKDIR/checkpoints/STEP, which goes on "
    "as if it had never ended"
)


def check_run(run: "Run") -> None:
    """Checks everything that can be known before the first step.  Writes nothing.

    Raises:
      InputError: an option cannot work, or the workdir belongs to another run.
    """
    config = run.config
    check_saved_config(run)
    _check_tracker(config.tracker)
    _check_classes(run)
    check_model(config.model, run.mesh)
    batch_share(run.mesh)
    check_batch("data.batch_size", config.data.batch_size, run.mesh, config.parallel.microbatches)
    check_batch("evaluate.batch_size", config.evaluate.batch_size, run.mesh)
    _schedule(run, config)
    _check_continued(run)
    _check_views(run)
    check_palette(run)
    run.test_examples()


def check_saved_config(run: "Run") -> None:
    """Raises InputError where the workdir was made with options that make it another run."""
    if (run.workdir / CONFIG).exists():
        saved, _ = read_config(run.workdir)
        _check_same(saved, run.config, run.workdir, FREE)


def check_palette(run: "Run") -> None:
    """Raises InputError where the workdir was made with another palette than the one that it holds now."""
    palette_hash = run.palette.hash
    if (run.workdir / CONFIG).exists():
        _, saved_hash = read_config(run.workdir)
        if palette_hash != saved_hash:
            raise InputError(
                f"{tokenizer_file(run.workdir)} has hash {palette_hash}, but the run was made with {saved_hash}; the "
                "file is damaged or another: delete it to have the colors fitted again, or restore it"
            )


def _schedule(run: "Run", config: RunConfig) -> optax.Schedule:
    steps_per_epoch = len(run.train_source) / config.data.batch_size
    return learning_rate_schedule(config.optimizer, steps=config.steps, steps_per_epoch=steps_per_epoch)


def _check_continued(run: "Run") -> None:
    path = run.config.continue_from
    if not path:
        return
    config, _ = run.continued
    _, step = checkpoint_place(path)
    _check_same(config, run.config, path, FREE + FREE_WHEN_CONTINUED)
    if step >= run.config.steps:
        raise InputError(f"continue_from={path} has taken {step} steps, and steps={run.config.steps}; raise steps")
    before, now = (jax.vmap(_schedule(run, c))(jnp.arange(step)) for c in (config, run.config))
    if (before != now).any():
        raise InputError(
            f"continue_from={path} was trained with learning rates that this run does not have before its step "
            f"{step}; name a checkpoint before the decay, with optimizer.schedule=wsd or constant"
        )


def _check_tracker(name: str) -> None:
    if name and not importlib.util.find_spec(name):
        raise InputError(f"tracker={name} is not installed; pip install {name}, or set tracker=''")


def _check_classes(run: "Run") -> None:
    name, weight, classes = run.config.data.name, run.config.objective.class_weight, run.config.model.classes
    if run.config.keep_best == "probe/accuracy" and not run.train_source.classes:
        raise InputError(f"data.name={name} has no labels to probe, so set keep_best='' in place of probe/accuracy")
    if (weight or classes) and not run.train_source.classes:
        raise InputError(
            f"data.name={name} has no labels, and objective.class_weight={weight:g} with model.classes={classes} "
            "needs them; give each class a sub-folder, or set both to 0"
        )
    if classes and run.train_source.classes != classes:
        raise InputError(
            f"data.name={name} has {run.train_source.classes} classes, but model.classes={classes}; set "
            "model.classes=0 to have them counted"
        )


def _check_views(run: "Run") -> None:
    views, name = run.config.evaluate.views, run.config.data.name
    if views > 1 and not run.evaluation_images_vary:
        raise InputError(
            f"evaluate.views={views}, but an evaluation image of data.name={name} looks the same every time; set "
            "evaluate.views=1"
        )


def _check_same(saved: RunConfig, config: RunConfig, where: pathlib.Path | str, free: tuple[str, ...]) -> None:
    for name, old, new in differences(saved, config, FIXED):
        if name not in free:
            remedy = HOW_TO_TRAIN_LONGER if name == "steps" else "use the same value or another --workdir"
            raise InputError(f"{where} was made with {name}={old!r}, now it is {new!r}; {remedy}")


def differences(
    saved: typing.Any, config: typing.Any, keys: tuple[str, ...]
) -> Iterator[tuple[str, typing.Any, typing.Any]]:
    """Yields (name, old value, new value) of every option below some keys in which two configs differ."""
    for key in keys:
        old, new = (functools.reduce(getattr, key.split("."), c) for c in (saved, config))
        yield from _differences(key, old, new)


def _differences(name: str, old: typing.Any, new: typing.Any) -> Iterator[tuple[str, typing.Any, typing.Any]]:
    """Yields (name, old value, new value) of every option that differs, in sections too."""
    if dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            yield from _differences(f"{name}.{field.name}", getattr(old, field.name), getattr(new, field.name))
    elif old != new:
        yield name, old, new
