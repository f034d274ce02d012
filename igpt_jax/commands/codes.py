"""Trains a codec, measures it on held-out pictures, and shows what it makes of them."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Iterator

from absl import flags

from igpt_jax.codes.codec import FILE
from igpt_jax.codes.config import CodecConfig
from igpt_jax.commands.run_checks import FIXED_DATA, differences
from igpt_jax.config import ParallelConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.pipeline import image_batches, originals
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError, Preempted
from igpt_jax.files import atomic_write, make_directory
from igpt_jax.parallel.mesh import check_batch, make_mesh
from igpt_jax.report.sheets import plot_reconstructions
from igpt_jax.train.codec import fit, measure
from igpt_jax.train.preemption import Preemption
from igpt_jax.train.workdir_lock import CONFIG, lock_workdir
from igpt_jax.types import HostBatch

SHOWN = 12  # pictures
# What makes a codec what it is.  The other options may change between two calls.
FIXED = (
    *("seed", "steps", "resolution", "learning_rate", "muon_learning_rate", "commitment", "decay", "network"),
    *FIXED_DATA,
)


def main(config: CodecConfig, workdir: pathlib.Path, options: flags.FlagValues) -> None:
    """Fills WORKDIR: codec.safetensors, checkpoints, metrics.jsonl, evaluation.json and reconstructions.png."""
    del options
    start = time.perf_counter()
    mesh = make_mesh(ParallelConfig())
    check_batch("data.batch_size", config.data.batch_size, mesh)
    training, central = augmentations(config.data, config.resolution)
    sources = {split: load_source(config.data, split) for split in ("train", "test")}
    _check_config(config, workdir)

    def batches_from(step: int) -> Iterator[HostBatch]:
        return image_batches(
            sources["train"],
            training,
            seed=config.seed,
            batch_size=config.data.batch_size,
            start_step=step,
            max_skipped=config.data.tolerated,
        )

    make_directory(workdir)
    with Preemption() as preemption, lock_workdir(workdir):
        with atomic_write(workdir / CONFIG) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        try:
            codec = fit(config, workdir, batches_from, mesh, preemption)
        except Preempted as notice:
            raise Preempted(f"{notice}; run the same command again to go on") from None
        codec.save(workdir / FILE)
        test = originals(sources["test"], central, batch_size=64, max_skipped=config.data.tolerated)
        result = measure(codec, test) | {
            "step": config.steps,
            "codec": codec.hash,
            "codes": len(codec),
            "positions": (config.resolution // codec.scale) ** 2,
            "wall_seconds": time.perf_counter() - start,
        }
        with atomic_write(workdir / "evaluation.json") as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n")
        pictures = originals(
            sources["test"],
            central,
            batch_size=SHOWN,
            shuffle_seed=config.seed,
            max_skipped=config.data.tolerated,
        )
        shown = next(pictures)["image"]
        plot_reconstructions(workdir / "reconstructions.png", shown, codec.decode(codec.encode(shown)))
    print(
        f"test: {result['psnr']:.1f} dB, {result['codes_used']:.0f} % of {len(codec)} codes used, "
        f"perplexity {result['perplexity']:.0f}; {result['positions']} codes a picture, hash {codec.hash}"
    )
    print(f"codec: {workdir / FILE}")


def _check_config(config: CodecConfig, workdir: pathlib.Path) -> None:
    """Raises InputError if the workdir was made with other options."""
    if not (workdir / CONFIG).exists():
        return
    try:
        saved = CodecConfig.from_dict(json.loads((workdir / CONFIG).read_text()))
    except ValueError as error:
        raise InputError(f"{workdir / CONFIG} is not that of a codec ({error}); use another --workdir") from error
    for name, old, new in differences(saved, config, FIXED):
        raise InputError(
            f"{workdir} was made with {name}={old!r}, now it is {new!r}; use the same value or another --workdir"
        )
