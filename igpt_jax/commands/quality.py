"""Measures samples without a feature network: copies, colour statistics and labels, beside held-out images."""

import dataclasses
import json
import pathlib

import numpy as np

from igpt_jax.commands.inputs import output_directory
from igpt_jax.commands.run import Run, saved_config
from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import Rows, split_features
from igpt_jax.evaluate.probe import fit
from igpt_jax.generate.complete import complete
from igpt_jax.generate.quality import divergences, jensen_shannon, nearest
from igpt_jax.generate.sample import Sampler
from igpt_jax.parallel.processes import is_first
from igpt_jax.report.sheets import plot_neighbours
from igpt_jax.weights.load import load

SHOWN = 24  # samples in the sheet


def main(config, workdir, options) -> None:
    """Draws samples; prints and writes quality.json and neighbours.png."""
    del config
    if options.n < 1 or options.views < 1:
        raise InputError(f"--n={options.n} and --views={options.views} must both be 1 or more")
    run, out = Run(saved_config(workdir), workdir), output_directory(options, "quality")
    sampler = Sampler(options.temperature, options.top_k, options.top_p)
    model, params, palette = load(workdir, mesh=run.mesh)
    test_bt, _ = _tokens(run.examples(run.test))
    train_bt, labels_b = _tokens(run.examples(run.train, options.views))
    test_bt = test_bt[: options.n]
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

    decode = palette.decode
    train = decode(train_bt)
    sets = {"samples": samples_bt, "held_out": test_bt}
    result = {
        "samples": len(samples_bt),
        "held_out": len(test_bt),
        "training": {"images": len(run.train), "views": options.views},
        "sampler": dataclasses.asdict(sampler) | {"seed": options.seed},
    }
    nearest_of = {name: nearest(decode(tokens_bt), train) for name, tokens_bt in sets.items()}
    result["nearest_training_image"] = {
        name: {"median": float(np.median(rms)), "minimum": float(rms.min()), "copies": int((rms == 0).sum())}
        for name, (rms, _) in nearest_of.items()
    }
    result["jensen_shannon"] = {
        name: divergences(tokens_bt, train_bt, len(palette)) for name, tokens_bt in sets.items()
    }
    if run.train.classes > 1:
        result["labels"] = _labels(run, params, train_bt, labels_b, sets)

    if not is_first():
        return
    rms_b, index_b = nearest_of["samples"]
    images = decode(samples_bt[:SHOWN])
    out.mkdir(parents=True, exist_ok=True)
    plot_neighbours(out / "neighbours.png", images, train[index_b[:SHOWN]], rms_b[:SHOWN])
    (out / "quality.json").write_text(json.dumps(result, indent=2) + "\n")
    _print(result)
    print(f"quality.json, neighbours.png: {out}")


def _tokens(examples):
    batches = list(examples)
    return np.concatenate([b["tokens"] for b in batches]), np.concatenate([b["label"] for b in batches])


def _labels(run, params, train_bt, labels_b, sets):
    """What a probe of the layer that `evaluate` found best calls the images; the training labels beside them."""
    path = pathlib.Path(run.workdir) / "evaluation.json"
    if not path.exists():
        raise InputError(f"there is no {path}, which says the best layer; run: python -m igpt_jax evaluate")
    probe = json.loads(path.read_text())["probe"]
    layer, size, classes = probe["best_layer"], run.config.evaluate.batch_size, run.train.classes
    settings_gs = np.full((1, 1), probe["settings"][probe["layer_numbers"].index(layer)], np.float32)
    config = dataclasses.replace(run.config.evaluate.probe, solver=probe["solver"])

    def features(tokens_bt, labels_b):
        parts = [slice(i, i + size) for i in range(0, len(tokens_bt), size)]
        batches = ({"tokens": tokens_bt[part], "label": labels_b[part]} for part in parts)
        return Rows.all(*split_features(run.model, params, batches, run.mesh))

    (fitted,) = fit(features(train_bt, labels_b), [(layer,)], settings_gs, classes, config, run.config.seed)
    shares = {"training": np.bincount(labels_b, minlength=classes) / len(labels_b)}
    for name, tokens_bt in sets.items():
        unknown_b = np.zeros(len(tokens_bt), np.int32)
        (found_b,), _ = fitted.read(features(tokens_bt, unknown_b))
        shares[name] = np.bincount(found_b, minlength=classes) / len(found_b)
    return {
        "shares": {name: share.tolist() for name, share in shares.items()},
        "jensen_shannon": {name: jensen_shannon(shares[name], shares["training"]) for name in sets},
    }


def _print(result):
    print(f"{'against the training images':<44}{'samples':>10}{'held out':>10}")
    rows = [(f"nearest, RMS 0-255: {key}", "nearest_training_image", key) for key in ("median", "minimum", "copies")]
    rows += [(f"Jensen-Shannon, nats: {key}", "jensen_shannon", key) for key in ("tokens", "row_pairs", "column_pairs")]
    for title, section, key in rows:
        print(f"{title:<44}" + "".join(f"{result[section][name][key]:>10.4g}" for name in ("samples", "held_out")))
    if "labels" in result:
        title, found = "Jensen-Shannon, nats: labels by the probe", result["labels"]["jensen_shannon"]
        print(f"{title:<44}" + "".join(f"{found[name]:>10.4g}" for name in ("samples", "held_out")))
