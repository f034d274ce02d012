"""Orbax checkpoints that explain and verify themselves: config, palette, versions and fingerprints in every one."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import PreservationContext, PreservationPolicy

from igpt_jax import __version__
from igpt_jax.config import RunConfig
from igpt_jax.config_format import FORMAT_VERSION, upgrade_config
from igpt_jax.data.palette import Palette
from igpt_jax.data.tokenizer import Codec, Tokenizer
from igpt_jax.errors import InputError
from igpt_jax.parallel.processes import barrier, broadcast_from_primary, is_primary_process
from igpt_jax.storage import absolute, describe_bucket_error, remove_directory
from igpt_jax.train.best import best_step
from igpt_jax.train.fingerprint import fingerprints
from igpt_jax.train.metrics import METRICS, read_metrics
from igpt_jax.train.state import TrainState
from igpt_jax.types import Params

LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")

T = TypeVar("T")


class DamagedCheckpoint(InputError):
    """A checkpoint is not what was saved."""


@contextlib.contextmanager
def reading(checkpoint: pathlib.Path) -> Iterator[None]:
    """A context in which a checkpoint is read.

    Raises:
      DamagedCheckpoint: it cannot be read.  Trouble of the file system, such as too many open files, says nothing about
        the checkpoint, and is raised as it is.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:  # what orbax, tensorstore and json raise on damaged files is anything
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if (isinstance(error, OSError) and not missing) or describe_bucket_error(error):
            raise
        raise DamagedCheckpoint(f"{checkpoint} is damaged: {' '.join(str(error).split())[:300]}") from error


class Checkpoints:
    """The checkpoints of one workdir, `WORKDIR/checkpoints/STEP/{params,optimizer,about}`.

    Saving is asynchronous and atomic: a directory has its final name only once it is whole.  What comes back, on any
    mesh and any number of processes, is what was saved, or `DamagedCheckpoint` is raised.
    """

    def __init__(self, workdir: pathlib.Path, keep: PreservationPolicy | None = None):
        """Opens the checkpoints of a workdir.

        Args:
          workdir: of the run.
          keep: which checkpoints are kept when a new one is complete.  It may look at their steps alone.  Without it,
            they are opened for reading only.

        Raises:
          InputError: orbax's metadata of a checkpoint are damaged.
        """
        self._directory = absolute(workdir) / "checkpoints"
        self._keep: Any = keep
        self._manager: Any = None  # orbax's, or None where there is nothing to read
        if keep:
            options = ocp.CheckpointManagerOptions(preservation_policy=keep, cleanup_tmp_directories=True)
        elif self._directory.is_dir():
            options = ocp.CheckpointManagerOptions(create=False)
        else:
            return
        try:
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except (TypeError, ValueError) as error:  # orbax reads the metadata of every checkpoint
            metadata = self._directory / "*" / "_CHECKPOINT_METADATA"
            raise InputError(
                f"the metadata of a checkpoint in {self._directory} are damaged: {error}; delete {metadata}, which no "
                "checkpoint needs"
            ) from error

    @property
    def steps(self) -> list[int]:
        """The steps saved, newest first."""
        return sorted(self._manager.all_steps(), reverse=True) if self._manager else []

    def newest(self, read: Callable[[int], T], before: float = float("inf")) -> T:
        """Reads the newest checkpoint that is not damaged, and names damaged ones on stderr.

        Args:
          read: from the step of a checkpoint to what is wanted of it; raises DamagedCheckpoint.
          before: only checkpoints of steps below it count.

        Returns:
          What `read` returns.

        Raises:
          InputError: there is no checkpoint, or all are damaged.
        """
        return self.first_whole([step for step in self.steps if step < before], read)

    def result(self, read: Callable[[int], T]) -> T:
        """Reads the checkpoint that the run results in, as `newest` does: the best by `keep_best`, or else the newest.

        If the best one is damaged, the newest is tried.
        """
        config, _ = self.newest(self.about)
        best = best_step(read_metrics(self._directory.parent / METRICS), config.keep_best, self.steps)
        (best,) = broadcast_from_primary(np.array([-1 if best is None else best]))
        return self.first_whole(sorted(self.steps, key=lambda step: step != best), read)

    def first_whole(self, steps: Sequence[int], read: Callable[[int], T]) -> T:
        """Reads the first of these checkpoints that is not damaged, as `newest` does."""
        if not steps:
            raise InputError(f"no checkpoint in {self._directory}; train one with: python -m igpt_jax train")
        for step in steps:
            try:
                return read(step)
            except DamagedCheckpoint as error:
                damage = error
                print(f"{error}; trying the next", file=sys.stderr)
        raise InputError(f"all checkpoints in {self._directory} are damaged, the last so: {damage}; restore a copy")

    def resume(self, like: TrainState, palette: Tokenizer) -> TrainState | None:
        """Reads the newest state that is not damaged, and renames newer damaged checkpoints to STEP.damaged.

        Returns:
          The state on the shardings of `like`, or None if there is no checkpoint yet.

        Raises:
          InputError: all checkpoints are damaged, or they were trained with another palette.
        """
        if not self.steps:
            return None

        def read(step: int) -> TrainState:
            self._check_palette(step, palette)
            return self.restore(step, like)

        state = self.newest(read)
        damaged = [step for step in self.steps if step > int(state.step)]
        for step in damaged if is_primary_process() else []:
            aside = self._directory / f"{step}.damaged"
            remove_directory(aside)
            (self._directory / str(step)).rename(aside)
        if damaged:
            barrier("damaged checkpoints are out of the way")
            self._manager.reload()
        return state

    def save(self, state: TrainState, config: RunConfig, palette: Tokenizer) -> None:
        """Writes the state in the background, unless its step is there already; `close` waits for it.

        Raises:
          InputError: this one, or the one before, could not be written.
        """
        if int(state.step) not in self.steps:
            items = {"params": state.params, "optimizer": _optimizer_items(state)}
            self._save(int(state.step), items, config, palette)

    def save_params(self, step: int, params: Params, config: RunConfig, palette: Tokenizer) -> None:
        """Writes parameters without optimizer state: enough to evaluate and sample, not to resume training."""
        self._save(step, {"params": params}, config, palette)

    def remove_old(self) -> None:
        """Removes what `keep` does not keep, also what a run had no time to remove before it was killed.

        Raises:
          InputError: a checkpoint could not be written or removed.
        """
        with self._writing():
            self._manager.wait_until_finished()
            steps = sorted(self.steps)
            infos = [types.SimpleNamespace(step=step) for step in steps]
            kept = self._keep.should_preserve(infos, context=PreservationContext())
            for step, keeps in zip(steps, broadcast_from_primary(np.array(kept)), strict=True):
                if not keeps:
                    self._manager.delete(step)

    def _save(self, step: int, items: dict[str, Any], config: RunConfig, palette: Tokenizer) -> None:
        about = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "config": dataclasses.asdict(config),
            "palette": palette.colors.tolist() if isinstance(palette, Palette) else None,
            "palette_hash": palette.hash,
            "versions": {"igpt_jax": __version__} | {name: importlib.metadata.version(name) for name in LIBRARIES},
            "fingerprints": fingerprints(items),
        }
        about["hash"] = _hash(about)
        args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(about=ocp.args.JsonSave(about), **args))

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Reads the whole state onto the shardings of `like`.

        Raises:
          InputError: the checkpoint has parameters alone, as `save_params` writes, or an older format.
        """
        where, about = self._directory / str(step), self._about(step)
        if about["format_version"] == 1:
            raise InputError(
                f"{where} has format version 1, which lacks the fingerprints that training needs; keep its "
                f"parameters with: python -m igpt_jax convert --input={self._directory.parent} --output=NEW --to=igpt"
            )
        if not any(name.startswith("optimizer/") for name in about["fingerprints"]):
            raise InputError(
                f"{where} has no optimizer state, so training cannot resume from it; "
                f"evaluate it or sample from it, or train in another --workdir"
            )
        items = self._restore(step, {"params": like.params, "optimizer": _optimizer_items(like)})
        return TrainState(params=items["params"], **items["optimizer"])

    def restore_params(self, step: int, like: Params) -> Params:
        """Reads the parameters alone onto the shardings of `like`."""
        return self._restore(step, {"params": like})["params"]

    def about(self, step: int) -> tuple[RunConfig, Tokenizer]:
        """Reads the config, and the palette or codec, that the checkpoint was trained with."""
        about = self._about(step)
        config = RunConfig.from_dict(upgrade_config(about["config"], about["format_version"]))
        if about["palette"] is not None:
            return config, Palette(np.asarray(about["palette"], np.float32))
        codec = Codec.load(self._directory.parent)
        if codec.hash != about["palette_hash"]:
            raise InputError(
                f"the codec in {self._directory.parent} has hash {codec.hash}, but {self._directory / str(step)} was "
                f"trained with {about['palette_hash']}; put that one back"
            )
        return config, codec

    def _restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        about = self._about(step)
        with reading(self._directory / str(step)):
            args = {name: ocp.args.StandardRestore(item) for name, item in like.items()}
            restored = dict(self._manager.restore(step, args=ocp.args.Composite(**args)))
        for name, fingerprint in fingerprints(restored).items() if about["format_version"] > 1 else ():
            if fingerprint != about["fingerprints"].get(name):
                raise DamagedCheckpoint(f"{self._directory / str(step)} is damaged: {name} is not what was saved")
        return restored

    def _about(self, step: int) -> dict[str, Any]:
        where = self._directory / str(step)
        with reading(self._directory / str(step)):
            about = dict(self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about)
            version, saved_hash = about["format_version"], about.pop("hash", None)
        if (version == 1 and saved_hash) or (version != 1 and (saved_hash != _hash(about) or about["step"] != step)):
            raise DamagedCheckpoint(f"{where} is damaged: its description is not what was saved")
        if not 1 <= version <= FORMAT_VERSION:
            raise InputError(f"{where} has format version {version}; a newer igpt_jax wrote it: use that one")
        return about

    def _check_palette(self, step: int, palette: Tokenizer) -> None:
        _, saved = self.about(step)
        if saved != palette:
            raise InputError(
                f"the palette has hash {palette.hash}, but {self._directory / str(step)} was trained with "
                f"{saved.hash}; use that one, or another --workdir"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a background thread's, of many libraries
            whole = max((int(path.name) for path in self._directory.iterdir() if path.name.isdecimal()), default=None)
            raise InputError(
                f"cannot write a checkpoint in {self._directory}: {str(error).rsplit(': ', 1)[-1]}; "
                f"{'there is no other' if whole is None else f'that of step {whole} is whole'}; "
                f"make room, and run the same command again to go on"
            ) from error

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          InputError: something could not be written.
        """
        if self._manager:
            with self._writing():
                self._manager.close()


def _optimizer_items(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "skipped": state.skipped}


def _hash(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
