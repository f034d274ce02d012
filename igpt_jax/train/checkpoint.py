"""Orbax checkpoints that explain themselves: parameters, optimiser state, config and palette in every one."""

import dataclasses
import pathlib

import numpy as np
import orbax.checkpoint as ocp

from igpt_jax.config import RunConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.train.state import TrainState

FORMAT_VERSION = 1


class Checkpoints:
    """The checkpoints of one work dir, `WORKDIR/checkpoints/STEP/{params,optimizer,about}`.

    Saving is asynchronous and atomic: a directory has its final name only once it is whole.
    """

    def __init__(self, workdir: pathlib.Path, keep: int | None = None):
        """Opens for writing with `keep`, the number of newest checkpoints that stay; without it, for reading."""
        self._directory = workdir.absolute() / "checkpoints"
        self._manager = None
        if keep or self._directory.is_dir():
            options = ocp.CheckpointManagerOptions(max_to_keep=keep)
            self._manager = ocp.CheckpointManager(self._directory, options=options)

    @property
    def latest_step(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step() if self._manager else None

    def require_latest_step(self) -> int:
        """The newest step saved.  Raises InputError where there is none."""
        if self.latest_step is None:
            raise InputError(f"no checkpoint in {self._directory}; train one with: python -m igpt_jax train")
        return self.latest_step

    def save(self, state: TrainState, config: RunConfig, palette: Palette) -> None:
        """Writes the state in the background; `close` waits for it."""
        optimizer = {"step": state.step, "opt_state": state.opt_state}
        self._save(int(state.step), state.params, config, palette, optimizer=ocp.args.StandardSave(optimizer))

    def save_params(self, step: int, params: dict, config: RunConfig, palette: Palette) -> None:
        """Writes parameters without optimiser state: enough to evaluate and sample, not to resume training."""
        self._save(step, params, config, palette)

    def _save(self, step, params, config, palette, **items):
        about = {
            "format_version": FORMAT_VERSION,
            "config": dataclasses.asdict(config),
            "palette": palette.colors.tolist(),
            "palette_hash": palette.hash,
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(params=ocp.args.StandardSave(params), about=ocp.args.JsonSave(about), **items),
        )

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Reads the whole state onto the shardings of `like`, whatever mesh it was saved from.

        Raises InputError where the checkpoint has parameters alone, as `save_params` writes.
        """
        if not (self._directory / str(step) / "optimizer").exists():
            raise InputError(
                f"{self._directory / str(step)} has no optimiser state, so training cannot resume from it; "
                f"evaluate it or sample from it, or train in another --workdir"
            )
        optimizer = {"step": like.step, "opt_state": like.opt_state}
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(like.params), optimizer=ocp.args.StandardRestore(optimizer)
            ),
        )
        return TrainState(items.optimizer["step"], items.params, items.optimizer["opt_state"])

    def restore_params(self, step: int, like: dict) -> dict:
        """Reads the parameters alone onto the shardings of `like`."""
        return self._manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(like))).params

    def about(self, step: int) -> tuple[RunConfig, Palette]:
        """Reads the config and palette that the checkpoint was trained with."""
        about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
        if about["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{self._directory / str(step)} has format version {about['format_version']}; "
                f"this igpt_jax reads version {FORMAT_VERSION}"
            )
        palette = Palette(np.asarray(about["palette"], np.float32))
        if palette.hash != about["palette_hash"]:
            raise InputError(f"{self._directory / str(step)} holds a damaged palette; restore an older checkpoint")
        return RunConfig.from_dict(about["config"]), palette

    def close(self) -> None:
        """Waits until everything is on disk."""
        if self._manager:
            self._manager.close()
