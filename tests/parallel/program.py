"""What several processes, or one, do alike: train, evaluate, sample; process 0 writes down what it sees.

python -m tests.parallel.program DIRECTORY DATA MODEL SLICES OPTION OUT
"""

import pathlib
import sys

import jax
import numpy as np

import igpt_jax as ig
from igpt_jax.config import DataConfig, EvaluateConfig, OptimizerConfig, ParallelConfig, RunConfig
from igpt_jax.data.palette import Palette
from igpt_jax.evaluate.features import split_features
from igpt_jax.evaluate.forward import mean_nats
from igpt_jax.generate.sample import image_keys, sample
from igpt_jax.parallel import processes
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.storage import as_path
from igpt_jax.train.loop import fit

STEPS, BATCH = 3, 8
MODEL = ig.ImageGPT(ig.ModelConfig(layers=1, width=16, heads=4, resolution=3, vocabulary=5))
COLORS = np.array([[-0.0, 0.5, 1]] * 5, np.float32)


def tokens(seed, count):
    return np.random.default_rng(seed).integers(0, 5, (count, 9)).astype(np.int32)


def batches_from(step, mesh):
    index, count = processes.batch_share(mesh)
    local = BATCH // count
    while True:
        mine = slice(index * local, (index + 1) * local)
        yield {"tokens": tokens(step, BATCH)[mine], "index": np.arange(BATCH, dtype=np.int32)[mine]}
        step += 1


def run(directory, mesh):
    """Trains with a stop and a resume, and returns all that should not depend on the mesh, by name."""
    palette = Palette(processes.broadcast_from_primary(COLORS * (processes.is_primary_process() or 0.5)))
    examples = [{"tokens": tokens(7, 11)[i : i + 4], "label": np.arange(11)[i : i + 4]} for i in (0, 4, 8)]
    evaluations = []

    def evaluate(params):
        evaluations.append(mean_nats(MODEL, params, examples, mesh))
        return {"test/nats_per_token": evaluations[-1]}

    for steps in (2, STEPS):
        config = RunConfig(
            steps=steps,
            log_every=1,
            model=MODEL.config,
            data=DataConfig(batch_size=BATCH),
            optimizer=OptimizerConfig(learning_rate=1e-2, warmup_epochs=0),
            evaluate=EvaluateConfig(every=1),
        )
        state = fit(
            config,
            directory,
            palette=palette,
            images_per_epoch=BATCH,
            batches_from=lambda step: batches_from(step, mesh),
            evaluate=evaluate,
            mesh=mesh,
        )
    features_lbd, labels_b = split_features(MODEL, state.params, examples, mesh)
    samples_bt = sample(MODEL, state.params, image_keys(0, 3), np.zeros((3, 0), np.int32)).tokens
    leaves = jax.tree.leaves_with_path(processes.allgather(state))
    return {jax.tree_util.keystr(keys): leaf for keys, leaf in leaves} | {
        "evaluations": np.array(evaluations),
        "features": features_lbd,
        "labels": labels_b,
        "samples": processes.allgather(samples_bt),
        "colors": palette.colors,
    }


if __name__ == "__main__":
    directory, data, model, slices, option, out = sys.argv[1:]
    sys.modules["clu"] = None  # no TensorBoard, which would bring TensorFlow
    processes.join(option)
    found = run(as_path(directory), make_mesh(ParallelConfig(int(data), int(model), int(slices))))
    if processes.is_primary_process():
        np.savez(pathlib.Path(out), **found)
    processes.leave(0)
