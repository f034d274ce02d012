"""Measures samples beside held-out images: copies, color statistics, labels, and distances between features."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from igpt_jax.checks import check_squares
from igpt_jax.commands.inputs import output_directory
from igpt_jax.commands.probes import feature_reader
from igpt_jax.commands.run import Run, saved_config
from igpt_jax.config import ParallelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import Rows
from igpt_jax.evaluate.forward import in_batches
from igpt_jax.evaluate.linear_probe import fit
from igpt_jax.files import make_directory
from igpt_jax.generate.complete import complete
from igpt_jax.generate.quality import divergences, jensen_shannon, nearest
from igpt_jax.generate.sample import Sampler
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.quality.compare import Measures, compare
from igpt_jax.quality.networks import open_network
from igpt_jax.quality.sets import array_names, read_images
from igpt_jax.quality.statistics import Statistics
from igpt_jax.report.sheets import plot_neighbors
from igpt_jax.storage import as_path, mirrored
from igpt_jax.types import HostBatch, Params
from igpt_jax.weights.load import load

SHOWN = 24  # samples in the sheet
SETS = ("samples", "held_out")
TITLES = {
    "fid": "Frechet distance",
    "fid_infinity": "Frechet distance at infinitely many images",
    "kid": "kernel distance (KID)",
    "kid_deviation": "kernel distance, deviation over subsets",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


def main(config: RunConfig | None, workdir: pathlib.Path | None, options: flags.FlagValues) -> None:
    """Draws samples, or takes those of --samples; prints and writes quality.json and neighbors.png."""
    if options.n < 1 or options.views < 1:
        raise InputError(f"--n={options.n} and --views={options.views} must both be 1 or more")
    out, measures = output_directory(options, "quality"), _measures(options)
    if workdir is None:
        result, pictures = _measure_files(options, measures), None
    else:
        result, pictures = _measure_run(config, workdir, options, measures)
    if not is_primary_process():
        return
    with mirrored(out) as directory:
        make_directory(directory)
        if pictures:
            samples, neighbors, rms = pictures
            plot_neighbors(directory / "neighbors.png", samples, neighbors, rms)
        (directory / "quality.json").write_text(json.dumps(result, indent=2) + "\n")
    _print(result)
    print(f"{'quality.json, neighbors.png' if pictures else 'quality.json'}: {out}")


def _measures(options: flags.FlagValues) -> Measures | None:
    """What --metrics asks for; None where it asks for nothing."""
    if not options.metrics:
        return None
    if not options.features:
        raise InputError(
            "--metrics needs --features=PATH: pytorch-fid's file of Inception's weights, or a workdir whose network "
            "stands in for it"
        )
    names = tuple(options.metrics.split(","))
    return Measures(names, options.neighbors, options.kid_subset, options.infinity, options.seed)


def _measure_files(options: flags.FlagValues, measures: Measures | None) -> dict[str, Any]:
    """Sets of files alone, without a run."""
    if not (options.samples and options.reference and measures):
        raise InputError("without --workdir, quality needs --samples, --reference, --metrics and --features")
    return {"features": _compare(options, measures, {"samples": read_images(options.samples)}, options.reference)}


def _compare(
    options: flags.FlagValues, measures: Measures, sets: dict[str, np.ndarray], reference: Any
) -> dict[str, Any]:
    """In a network's features; `reference` is a set of images or what --reference names."""
    network = open_network(as_path(options.features), options.resize, make_mesh(ParallelConfig()), options.batch_size)
    if isinstance(reference, str):
        named, reference = reference, _read_reference(reference)
    else:
        named = "training images"
    distances, statistics = compare(sets, reference, network, measures)
    if options.save_statistics and is_primary_process():
        statistics.save(as_path(options.save_statistics))
    return {"reference": named, "samples_from": options.samples or "drawn"} | distances


def _read_reference(place: str) -> Statistics | np.ndarray:
    """A file of statistics, or images."""
    if place.endswith(".npz") and "mu" in array_names(as_path(place)):
        return Statistics.load(as_path(place))
    return read_images(place)


def _measure_run(
    config: RunConfig | None, workdir: pathlib.Path, options: flags.FlagValues, measures: Measures | None
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A run's samples beside its held-out images.  Returns the result, and what the sheet of neighbors shows."""
    run = Run.open(config, workdir) if config else Run(saved_config(workdir), workdir)
    sampler = Sampler(options.temperature, options.top_k, options.top_p)
    probe = _saved_probe(run) if run.train_source.classes > 1 else None
    model, params, palette = load(workdir, mesh=run.mesh)
    test_bt, _ = _tokens(run.examples(run.test_source))
    views = options.views if run.training_images_vary else 1
    train_bt, labels_b = _tokens(run.examples(run.train_source, views))
    chosen = np.random.default_rng(options.seed).permutation(len(test_bt))[: options.n]  # a source may be sorted
    test_bt, train = test_bt[np.sort(chosen)], palette.decode(train_bt)
    if options.samples:
        samples = check_squares(read_images(options.samples), run.config.model.resolution * palette.scale)
        samples_bt = palette.encode(samples)
    else:
        samples_bt = complete(
            model,
            params,
            np.zeros((1, 0), np.int32),
            n=options.n,
            seed=options.seed,
            mesh=run.mesh,
            sampler=sampler,
            batch_size=options.batch_size,
        ).tokens[0]

    sets = {"samples": samples_bt, "held_out": test_bt}
    images = {name: palette.decode(tokens_bt) for name, tokens_bt in sets.items()}
    result = {
        "samples": len(samples_bt),
        "held_out": len(test_bt),
        "training": {"images": len(run.train_source), "views": views},
        "sampler": dataclasses.asdict(sampler) | {"seed": options.seed},
    }
    rms_b, index_b = nearest(np.concatenate([images[name] for name in SETS]), train)
    rms_of = dict(zip(SETS, np.split(rms_b, [len(samples_bt)]), strict=True))
    result["nearest_training_image"] = {
        name: {"median": float(np.median(rms)), "minimum": float(rms.min()), "copies": int((rms == 0).sum())}
        for name, rms in rms_of.items()
    }
    result["jensen_shannon"] = {
        name: divergences(tokens_bt, train_bt, len(palette)) for name, tokens_bt in sets.items()
    }
    if probe:
        result["labels"] = _labels(run, params, probe, train_bt, labels_b, sets)
    if measures:
        result["features"] = _compare(options, measures, images, options.reference or train)
    shown = images["samples"][:SHOWN]
    return result, (shown, train[index_b[: len(shown)]], rms_b[: len(shown)])


def _tokens(examples: Iterator[HostBatch]) -> tuple[np.ndarray, np.ndarray]:
    batches = list(examples)
    return np.concatenate([b["tokens"] for b in batches]), np.concatenate([b["label"] for b in batches])


def _saved_probe(run: Run) -> dict[str, Any]:
    """The probe's result in evaluation.json."""
    path = run.workdir / "evaluation.json"
    if not path.exists():
        raise InputError(f"there is no {path}, which says the best layer; run: python -m igpt_jax evaluate")
    probe = json.loads(path.read_text()).get("probe")
    if probe is None:
        raise InputError(f"{path} has no probe, which says the best layer; run evaluate without --probe=False")
    return probe


def _labels(
    run: Run,
    params: Params,
    probe: dict[str, Any],
    train_bt: np.ndarray,
    labels_b: np.ndarray,
    sets: dict[str, np.ndarray],
) -> dict[str, Any]:
    """What a probe of the layer that `evaluate` found best calls the images; the training labels beside them."""
    layer, size, classes = probe["best_layer"], run.config.evaluate.batch_size, run.train_source.classes
    settings_gs = np.full((1, 1), probe["settings"][probe["layer_numbers"].index(layer)], np.float32)
    config = dataclasses.replace(run.config.evaluate.probe, solver=probe["solver"])
    features_of = feature_reader(run, params)

    def features(tokens_bt: np.ndarray, labels_b: np.ndarray) -> Rows:
        return Rows.all(*features_of(in_batches({"tokens": tokens_bt, "label": labels_b}, size)))

    (fitted,) = fit(features(train_bt, labels_b), [(layer,)], settings_gs, classes, config, run.config.seed)
    shares = {"training": np.bincount(labels_b, minlength=classes) / len(labels_b)}
    for name, tokens_bt in sets.items():
        unknown_b = np.zeros(len(tokens_bt), np.int32)
        (classes_b,), _ = fitted.read(features(tokens_bt, unknown_b))
        shares[name] = np.bincount(classes_b, minlength=classes) / len(classes_b)
    return {
        "shares": {name: share.tolist() for name, share in shares.items()},
        "jensen_shannon": {name: jensen_shannon(shares[name], shares["training"]) for name in sets},
    }


def _print(result: dict[str, Any]) -> None:
    if "nearest_training_image" in result:
        print(f"{'against the training images':<44}{'samples':>10}{'held out':>10}")
    rows = [(f"nearest, RMS 0-255: {key}", "nearest_training_image", key) for key in ("median", "minimum", "copies")]
    rows += [(f"Jensen-Shannon, nats: {key}", "jensen_shannon", key) for key in ("tokens", "row_pairs", "column_pairs")]
    for title, section, key in rows:
        if section in result:
            _print_row(title, {name: result[section][name][key] for name in SETS})
    if "labels" in result:
        _print_row("Jensen-Shannon, nats: labels by the probe", result["labels"]["jensen_shannon"])
    if features := result.get("features"):
        print(f"against {features['reference']}, in features of {features['network']}:")
        for key, title in TITLES.items():
            if key in features["samples"]:
                _print_row(title, {name: features[name][key] for name in SETS if name in features})


def _print_row(title: str, values: dict[str, float]) -> None:
    print(f"{title:<44}" + "".join(f"{values[name]:>10.4g}" for name in SETS if name in values))
