"""The probes of a run: of its features, beside raw pixels and the untrained network, of all labels and of few."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from igpt_jax.commands.run import Run
from igpt_jax.config import ProbeConfig
from igpt_jax.data.palette import Palette
from igpt_jax.data.records import TokenSource
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.evaluate.features import split_features, stored
from igpt_jax.evaluate.low_data import LowDataResult, low_data
from igpt_jax.evaluate.probe import ProbeResult, probe
from igpt_jax.storage import in_bucket
from igpt_jax.train.state import init_params
from igpt_jax.types import HostBatch, Params


def probe_features(run: Run, params: Params) -> ProbeResult:
    """Probes every layer with all labels."""
    return _probe(run, run.config.evaluate.probe, _features(run, params), run.masks)


def probe_scalars(run: Run, params: Params) -> dict[str, float]:
    """Returns the test accuracies that are followed during training, by their names in TensorBoard; per cent."""
    result = probe_features(run, params)
    scalars = {f"probe/layer_{layer.layers[0]:02d}": layer.accuracy for layer in result.layer_results}
    scalars["probe/accuracy"] = result.accuracy
    if result.concatenated:
        scalars["probe/concatenated"] = result.concatenated.accuracy
    if run.masks > 1:
        scalars["probe/vote_accuracy"] = result.best.vote_accuracy
    return scalars


def measure_probes(run: Run, params: Params) -> dict[str, Any]:
    """Returns everything about probes that evaluation.json says; accuracies in per cent."""
    config = run.config.evaluate.probe
    trained, low_data_results = _probe_and_low_data(run, config, _features(run, params), run.masks)
    pixels, low_data_of_pixels = _probe_and_low_data(
        run, dataclasses.replace(config, layers=(), concatenate=0), _pixels(run), masks=1
    )
    measured = {
        "solver": config.solver,
        "layers": [layer.accuracy for layer in trained.layer_results],
        "layer_numbers": [layer.layers[0] for layer in trained.layer_results],
        "held_out": [layer.held_out_accuracy for layer in trained.layer_results],
        "settings": [layer.setting for layer in trained.layer_results],
        "best_layer": trained.best_layer,
        "accuracy": trained.accuracy,
        "raw_pixels": pixels.accuracy,
        "raw_pixels_setting": pixels.best.setting,
        "untrained": probe_features(run, init_params(run.model, run.config.seed, run.mesh)).accuracy,
    }
    if trained.concatenated:
        measured["concatenated"] = dataclasses.asdict(trained.concatenated)
    if run.masks > 1:
        votes = [layer.vote_accuracy for layer in trained.layer_results]
        measured["vote"] = {"masks": run.masks, "layers": votes, "accuracy": trained.best.vote_accuracy}
    if low_data_results:
        measured["low_data"] = [
            {"labels_per_class": ours.labels_per_class} | _spread(ours) | {"raw_pixels": _spread(theirs)}
            for ours, theirs in zip(low_data_results, low_data_of_pixels, strict=True)
        ]
    return measured


def print_probes(probe: dict[str, Any], layers: int) -> None:
    """Prints the result of `measure_probes` for a model of so many layers."""
    setting = probe["settings"][probe["layer_numbers"].index(probe["best_layer"])]
    chosen = f"{'L2 strength' if probe['solver'] == 'lbfgs' else 'learning rate'} {setting:g}"
    print(f"linear probe: {probe['accuracy']:.1f} % at layer {probe['best_layer']} of {layers}, with {chosen}")
    if vote := probe.get("vote"):
        print(f"modal vote of {vote['masks']} masks: {vote['accuracy']:.1f} %")
    if together := probe.get("concatenated"):
        numbers = ", ".join(map(str, together["layers"]))
        print(f"layers {numbers} side by side: {together['accuracy']:.1f} %")
    print(f"baselines: raw pixels {probe['raw_pixels']:.1f} %, the same network untrained {probe['untrained']:.1f} %")
    for row in probe.get("low_data", ()):
        pixels = row["raw_pixels"]
        print(
            f"{row['labels_per_class']} labels a class: {row['accuracy']:.1f} ± {row['std']:.1f} %, "
            f"raw pixels {pixels['accuracy']:.1f} ± {pixels['std']:.1f} %"
        )


def _spread(result: LowDataResult) -> dict[str, Any]:
    return {"accuracy": result.accuracy, "std": result.std, "accuracies": result.accuracies}


Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # features and labels to train with, and to test with


def _features(run: Run, params: Params) -> Split:
    """Returns features (l, b, d) and labels (b,) of the training and of the test images.

    A BERT model sees every view of a training image under one mask of its own (the paper does not say), and every view
    of a test image under `run.masks`.
    """
    config = run.config.evaluate.probe
    train = run.examples(run.train_source, config.augmented_epochs, task="features of training images")
    test = itertools.chain.from_iterable(
        run.test_examples(draw, task="features of test images") for draw in range(run.masks)
    )
    features = feature_reader(run, params)
    return *features(train), *features(test)


def feature_reader(run: Run, params: Params) -> Callable[[Iterable[HostBatch]], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from labeled examples to the features (l, b, d) that probes read, and the labels (b,)."""
    config = run.config.evaluate.probe
    model = run.model.clone(normalized_features=config.normalized)
    return functools.partial(
        split_features, model, params, mesh=run.mesh, memory=config.memory * 2**30, directory=_spill(run)
    )


def _spill(run: Run) -> pathlib.Path | None:
    """Where features go that do not fit into memory: the workdir, unless that is in a bucket."""
    return None if in_bucket(run.workdir) else run.workdir


def _pixels(run: Run) -> Split:
    """Returns likewise the colors that the model sees, as one layer; gray ones are one number each.

    Of a code, it is the mean color of its patch, so that pixels and codes are compared at the same number of positions.
    """
    config = run.config.evaluate.probe
    colors_of = _color_reader(run.palette)

    def read(examples: Iterator[HostBatch]) -> tuple[np.ndarray, np.ndarray]:
        labels = []

        def batches() -> Iterator[np.ndarray]:
            for batch in examples:
                labels.append(batch["label"])
                yield colors_of(batch["tokens"]).reshape(len(batch["tokens"]), 1, -1)

        pixels_bld = stored(batches(), config.memory * 2**30, _spill(run))
        return pixels_bld.swapaxes(0, 1), np.concatenate(labels)

    return *read(run.examples(run.train_source, config.augmented_epochs)), *read(run.test_examples())


def _color_reader(palette: Tokenizer) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from tokens (b, t) to their colors (b, t, channels) in [-1, 1]."""
    if isinstance(palette, Palette):
        colors = palette.colors
        colors = colors[:, :1] if (colors == colors[:, :1]).all() else colors
        return lambda tokens_bt: colors[tokens_bt]
    scale = palette.scale

    def mean_colors(tokens_bt: np.ndarray) -> np.ndarray:
        pictures = palette.decode(tokens_bt) / np.float32(127.5) - 1
        patches = pictures.reshape(len(pictures), -1, scale, pictures.shape[2] // scale, scale, 3)
        return patches.mean(axis=(2, 4)).reshape(*tokens_bt.shape, 3)

    return mean_colors


def _stored_views(run: Run) -> int:
    """How often each training image is in its source."""
    return run.train_source.views if isinstance(run.train_source, TokenSource) else 1


def _probe(run: Run, config: ProbeConfig, features: Split, masks: int) -> ProbeResult:
    return probe(
        *features,
        classes=run.train_source.classes,
        config=config,
        seed=run.config.seed,
        views=(config.augmented_epochs or 1) * _stored_views(run),
        masks=masks,
    )


def _probe_and_low_data(
    run: Run, config: ProbeConfig, features: Split, masks: int
) -> tuple[ProbeResult, list[LowDataResult]]:
    """Probes with all labels; then with each of `labels_per_class`, at the layer and penalty that all labels chose."""
    result, images = _probe(run, config, features, masks), len(run.train_source) // _stored_views(run)
    train_lbd, train_labels_b, test_lbd, test_labels_b = features
    low_data_results = [
        low_data(
            train_lbd[:, :images],  # one view of every image
            train_labels_b[:images],
            test_lbd,
            test_labels_b,
            labels_per_class=labels_per_class,
            layers=result.best.layers,
            penalty=result.best.setting * images,
            classes=run.train_source.classes,
            subsets=config.subsets,
            seed=run.config.seed,
            masks=masks,
        )
        for labels_per_class in config.labels_per_class
    ]
    return result, low_data_results
