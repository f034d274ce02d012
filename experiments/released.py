"""Measures the released weights: held-out loss, completions of the upper half, and a linear probe on CIFAR-10.

    python -m experiments.released --weights=downloads/model.ckpt-1000000 --data=downloads

On the 50,000 center-cropped test images of imagenet_teX.npy, expect the numbers of the released code's README: after
1,000,000 iterations 2.0895 (S), 2.0614 (M) and 2.0466 (L) nats per token.

These commands download the files for iGPT-S.  M has 32 shards as well; L has 64.

    host=https://openaipublic.blob.core.windows.net/image-gpt
    mkdir -p downloads && cd downloads
    for i in $(seq -f %05g 0 31); do
      curl -fO $host/checkpoints/igpt-s/1000000/model.ckpt-1000000.data-$i-of-00032
    done
    curl -fO $host/checkpoints/igpt-s/1000000/model.ckpt-1000000.index
    curl -fO $host/color-clusters/kmeans_centers.npy
    curl -fO $host/datasets/imagenet_teX.npy
    for part in trX trY teX teY; do curl -fO $host/datasets/cifar10_$part.npy; done

--weights is any path that `igpt_jax.load` accepts.  The features of all layers for CIFAR-10's 60,000 images need 6 GB
of memory for S, 18 GB for M and 36 GB for L; --limit=N uses the first N images of every file.
"""

import argparse
import pathlib
import sys

import numpy as np

import igpt_jax as ig
from igpt_jax.config import ModelConfig, ParallelConfig, ProbeConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import split_features
from igpt_jax.evaluate.forward import in_batches, mean_nats
from igpt_jax.evaluate.probe import probe
from igpt_jax.generate.complete import complete
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.report.sheets import plot_completions

FILES = ("imagenet_teX", "cifar10_trX", "cifar10_trY", "cifar10_teX", "cifar10_teY")
BATCH_SIZE = 32
COMPLETED, COMPLETIONS = 6, 4  # images, and completions of each


def main(arguments: list[str]) -> int:
    """Prints what it measures.  Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser("experiments.released", description="Measures the released weights.")
    parser.add_argument(
        "--weights", required=True, help="a path that igpt_jax.load accepts, such as model.ckpt-1000000"
    )
    parser.add_argument("--data", type=pathlib.Path, required=True, help=f"directory of {', '.join(FILES)} (.npy)")
    parser.add_argument("--limit", type=int, help="how many images of every file to use; default: all")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path(),
        help="directory for completions.png; default: the current one",
    )
    options = parser.parse_args(arguments)
    try:
        measure(options.weights, options.data, options.limit, options.out)
    except InputError as error:
        print(f"experiments.released: {error}", file=sys.stderr)
        return 2
    return 0


def measure(weights: str, data: pathlib.Path, limit: int | None, out: pathlib.Path) -> None:
    """Measures one model on OpenAI's token files, and draws completions.

    Args:
      weights: a path that `igpt_jax.load` accepts.
      data: the directory of `FILES`.
      limit: how many images of every file to use; None uses all.
      out: the directory for completions.png.

    Raises:
      InputError: a file is missing, the model cannot be loaded, or the tokens are not those of the model.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit={limit} must be at least 1")
    missing = [f"{name}.npy" for name in FILES if not (data / f"{name}.npy").exists()]
    if missing:
        raise InputError(f"{data} lacks {', '.join(missing)}; experiments/released.py says where to download them")
    mesh = make_mesh(ParallelConfig())
    model, params, palette = ig.load(weights, objective="ar", mesh=mesh)
    arrays = {name: np.load(data / f"{name}.npy", mmap_mode="r")[:limit] for name in FILES}
    tokens_bt = _tokens(arrays["imagenet_teX"], model.config)

    originals_bt, half = tokens_bt[:COMPLETED], model.config.context // 2
    completions_bnt = complete(model, params, originals_bt[:, :half], n=COMPLETIONS, seed=0, mesh=mesh).tokens
    hidden_bt = np.broadcast_to(np.arange(model.config.context) >= half, originals_bt.shape)
    plot_completions(out / "completions.png", palette, originals_bt, completions_bnt, hidden_bt)
    print(f"completions: {out / 'completions.png'}")

    nats = mean_nats(model, params, in_batches({"tokens": tokens_bt}, BATCH_SIZE), mesh)
    print(f"test: {nats:.4f} nats/token on {len(tokens_bt)} images")

    def features(split: str) -> tuple[np.ndarray, np.ndarray]:
        tokens_bt = _tokens(arrays[f"cifar10_{split}X"], model.config)
        labels_b = arrays[f"cifar10_{split}Y"].argmax(axis=1).astype(np.int32)
        return split_features(model, params, in_batches({"tokens": tokens_bt, "label": labels_b}, BATCH_SIZE), mesh)

    classes = arrays["cifar10_trY"].shape[1]
    result = probe(*features("tr"), *features("te"), classes=classes, config=ProbeConfig(), seed=0)
    print(f"linear probe on CIFAR-10: {result.accuracy:.1f} % at layer {result.best_layer} of {model.config.layers}")


def _tokens(array: np.ndarray, config: ModelConfig) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != config.context:
        raise InputError(f"the tokens have shape {array.shape}; this model reads (n, {config.context})")
    tokens_bt = np.asarray(array, np.int32)
    if tokens_bt.min() < 0 or tokens_bt.max() >= config.vocabulary:
        raise InputError(f"the tokens reach {tokens_bt.max()}; this model knows 0 to {config.vocabulary - 1}")
    return tokens_bt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
