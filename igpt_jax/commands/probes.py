"""The probes of a run: of its features, beside raw pixels and the untrained network, of all labels and of few."""

import dataclasses
import itertools

import numpy as np

from igpt_jax.commands.run import Run
from igpt_jax.evaluate.features import split_features, stored
from igpt_jax.evaluate.low_data import LowDataResult, low_data
from igpt_jax.evaluate.probe import ProbeResult, probe
from igpt_jax.train.state import init_params


def probe_features(run: Run, params: dict) -> ProbeResult:
    """Probes every layer with all labels."""
    return _probe(run, run.config.evaluate.probe, _features(run, params), run.masks)


def probe_scalars(run: Run, params: dict) -> dict[str, float]:
    """Test accuracies that are followed during training, by their names in TensorBoard; per cent."""
    found = probe_features(run, params)
    scalars = {f"probe/layer_{reading.layers[0]:02d}": reading.accuracy for reading in found.layer_results}
    scalars["probe/accuracy"] = found.accuracy
    if found.concatenated:
        scalars["probe/concatenated"] = found.concatenated.accuracy
    if run.masks > 1:
        scalars["probe/vote_accuracy"] = found.best.vote_accuracy
    return scalars


def measure_probes(run: Run, params: dict) -> dict:
    """Everything about probes that evaluation.json says; accuracies in per cent."""
    config = run.config.evaluate.probe
    trained, low = _probe_and_low_data(run, config, _features(run, params), run.masks)
    pixels, low_pixels = _probe_and_low_data(
        run, dataclasses.replace(config, layers=(), concatenate=0), _pixels(run), masks=1
    )
    found = {
        "solver": config.solver,
        "layers": [reading.accuracy for reading in trained.layer_results],
        "layer_numbers": [reading.layers[0] for reading in trained.layer_results],
        "held_out": [reading.held_out_accuracy for reading in trained.layer_results],
        "settings": [reading.setting for reading in trained.layer_results],
        "best_layer": trained.best_layer,
        "accuracy": trained.accuracy,
        "raw_pixels": pixels.accuracy,
        "untrained": probe_features(run, init_params(run.model, run.config.seed, run.mesh)).accuracy,
    }
    if trained.concatenated:
        found["concatenated"] = dataclasses.asdict(trained.concatenated)
    if run.masks > 1:
        votes = [reading.vote_accuracy for reading in trained.layer_results]
        found["vote"] = {"masks": run.masks, "layers": votes, "accuracy": trained.best.vote_accuracy}
    if low:
        found["low_data"] = [
            {"labels_per_class": ours.labels_per_class} | _spread(ours) | {"raw_pixels": _spread(theirs)}
            for ours, theirs in zip(low, low_pixels, strict=True)
        ]
    return found


def print_probes(found: dict, layers: int) -> None:
    """Says what `measure_probes` found of a model of so many layers."""
    print(f"linear probe: {found['accuracy']:.1f} % at layer {found['best_layer']} of {layers}")
    if vote := found.get("vote"):
        print(f"modal vote of {vote['masks']} masks: {vote['accuracy']:.1f} %")
    if together := found.get("concatenated"):
        numbers = ", ".join(map(str, together["layers"]))
        print(f"layers {numbers} side by side: {together['accuracy']:.1f} %")
    print(f"baselines: raw pixels {found['raw_pixels']:.1f} %, the same network untrained {found['untrained']:.1f} %")
    for row in found.get("low_data", ()):
        pixels = row["raw_pixels"]
        print(
            f"{row['labels_per_class']} labels a class: {row['accuracy']:.1f} ± {row['std']:.1f} %, "
            f"raw pixels {pixels['accuracy']:.1f} ± {pixels['std']:.1f} %"
        )


def _spread(result: LowDataResult):
    return {"accuracy": result.accuracy, "std": result.std, "accuracies": result.accuracies}


def _features(run, params):
    """Features and labels of the training and of the test images.

    A BERT model sees every view of a training image under one mask of its own (the paper does not say), and every view
    of a test image under `run.masks`.
    """
    config = run.config.evaluate.probe
    model = run.model.clone(normalized_features=config.normalized)
    test = itertools.chain.from_iterable(run.test_examples(draw) for draw in range(run.masks))
    splits = run.examples(run.train_source, config.augmented_epochs), test
    options = {"memory": config.memory * 2**30, "directory": run.workdir}
    return [x for examples in splits for x in split_features(model, params, examples, run.mesh, **options)]


def _pixels(run):
    """Likewise the colors that the model sees, as one layer; gray ones are one number each."""
    config, colors = run.config.evaluate.probe, run.palette.colors
    colors = colors[:, :1] if (colors == colors[:, :1]).all() else colors

    def read(examples):
        labels = []

        def batches():
            for batch in examples:
                labels.append(batch["label"])
                yield colors[batch["tokens"]].reshape(len(batch["tokens"]), 1, -1)

        pixels_bld = stored(batches(), config.memory * 2**30, run.workdir)
        return pixels_bld.swapaxes(0, 1), np.concatenate(labels)

    return *read(run.examples(run.train_source, config.augmented_epochs)), *read(run.test_examples())


def _probe(run, config, features, masks):
    views = config.augmented_epochs or 1
    return probe(
        *features, classes=run.train_source.classes, config=config, seed=run.config.seed, views=views, masks=masks
    )


def _probe_and_low_data(run, config, features, masks):
    """The probe of all labels; and for each of `labels_per_class` that of few, with the layer and penalty it chose."""
    found, images = _probe(run, config, features, masks), len(run.train_source)
    train_lbd, train_labels_b, *test = features
    few = [
        low_data(
            *(train_lbd[:, :images], train_labels_b[:images], *test),  # one view of every image
            labels_per_class=labels_per_class,
            layers=found.best.layers,
            penalty=found.best.setting * images,
            classes=run.train_source.classes,
            subsets=config.subsets,
            seed=run.config.seed,
            masks=masks,
        )
        for labels_per_class in config.labels_per_class
    ]
    return found, few
