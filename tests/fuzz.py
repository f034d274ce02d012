"""Damages the files of every reader, over and over, and counts what the readers make of them.

    python -m tests.fuzz --cases=1000

A case truncates, empties, deletes or overwrites a file, flips a bit, or puts a value of another type into JSON, and
then the reader is called; or a hostile value stands in a config, a config file or a flag.  It may be refused with an
InputError, or the reader gives the very value of the undamaged file.  What a run writes for itself is sealed by hashes,
and another value is a silent acceptance of damage there.  Formats of others, a palette outside a run and a line of
metrics have no redundancy, and a hostile value may be one that works: then another value is what the file or the flag
now says, and is counted apart ("another value").  Exit status 1 where there is a traceback, a silent acceptance, or a
file that was not there before.
"""

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import safetensors.torch
import torch
from absl import logging
from orbax.checkpoint.checkpoint_managers import LatestN
from PIL import Image

import igpt_jax as ig
from igpt_jax.config import DataConfig, EvaluateConfig, ModelConfig, RunConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.folder import open_images
from igpt_jax.data.mask import read_mask
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import examples, originals
from igpt_jax.data.sources import load_source
from igpt_jax.data.token_shards import write_tokens
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.metrics import read_metrics
from igpt_jax.train.state import init_params
from igpt_jax.train.workdir_lock import read_config, write_config
from igpt_jax.weights.convert import convert
from tests import hostile

CONFIG = RunConfig(model=ModelConfig(layers=2, width=24, heads=3, resolution=4, vocabulary=17))
COLUMNS = ("cases", "refused", "unharmed", "another value", "silent", "tracebacks", "files left")


class Reader(NamedTuple):
    """A reader, a directory with sound files for it, and whether they are sealed."""

    directory: pathlib.Path
    read: Callable[[pathlib.Path], object]
    sealed: bool


def readers(directory: pathlib.Path) -> dict[str, Reader]:
    """Writes what the readers read."""
    palette = Palette(np.linspace(-1, 1, 51).reshape(17, 3))
    run, huggingface, pickled, openai, alone = (directory / name for name in ("run", "hf", "bin", "openai", "alone"))
    params = init_params(ig.ImageGPT(CONFIG.model), 0, make_mesh(CONFIG.parallel, jax.devices()[:1]))
    with contextlib.closing(Checkpoints(run, keep=LatestN(1))) as checkpoints:
        checkpoints.save_params(3, params, CONFIG, palette)
    convert(run, huggingface, "huggingface")
    convert(run, openai, "openai")
    shutil.copytree(huggingface, pickled)
    torch.save(safetensors.torch.load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    alone.mkdir()
    (alone / "metrics.jsonl").write_text("".join(f'{{"step": {n}, "x": {n / 7}}}\n' for n in range(20)))
    palette_only, claim = directory / "palette", directory / "claim"
    palette_only.mkdir()
    palette.save(palette_only / "palette.npy")
    claim.mkdir()
    write_config(claim, CONFIG, palette)
    (claim / "palette.npy").unlink()
    return _image_readers(directory, palette) | {
        "checkpoint": Reader(run, _load, True),
        "config.json of a run": Reader(claim, read_config, True),
        "palette.npy": Reader(palette_only, lambda path: Palette.load(path / "palette.npy").colors, False),
        "metrics.jsonl": Reader(alone, lambda path: read_metrics(path / "metrics.jsonl"), False),
        "Hugging Face safetensors": Reader(huggingface, _load, False),
        "Hugging Face pickle": Reader(pickled, _load, False),
        "OpenAI checkpoint": Reader(openai, _load, False),
    }


def _image_readers(directory, palette):
    """Readers of images and tokens."""
    ours, theirs, images, mask = (directory / name for name in ("ours", "theirs", "images", "mask"))
    drawn = np.random.default_rng(0)
    tokens = drawn.integers(0, 17, (6, 16), np.int32)
    labels = np.arange(6, dtype=np.int32) % 3
    facts = {"fold_validation": False, "classes": 3, "resolution": 4}
    write_tokens(ours, palette, facts, {"train": (6, lambda start: [{"tokens": tokens, "label": labels}])})
    for path in (theirs, images / "a", images / "b", mask):
        path.mkdir(parents=True)
    np.save(theirs / "set_trX.npy", tokens)
    np.save(theirs / "set_trY.npy", np.eye(3, dtype=np.float32)[labels])
    for name in ("a/0.png", "a/1.jpg", "b/2.webp", "b/3.jpg"):
        Image.fromarray(drawn.integers(0, 255, (20, 30, 3), np.uint8)).save(images / name)
    Image.fromarray(drawn.integers(0, 2, (4, 4), np.uint8) * 255).save(mask / "mask.png")

    def read_tokens(name):
        source = load_source(DataConfig(name=f"tokens:{name}"), "train")
        batches = examples(source, palette, augmentations(DataConfig(), 4)[1], batch_size=6)
        return [(batch["tokens"], batch["label"]) for batch in batches]

    def read_folder(path):
        return read_pictures(load_source(DataConfig(name=f"folder:{path}", fold_validation=True), "train"))

    def read_pictures(source):
        batches = originals(source, augmentations(DataConfig(name="folder:"), 4)[1], batch_size=4)
        return [(batch["image"], batch["label"]) for batch in batches]

    return {
        "tokens": Reader(ours, read_tokens, False),
        "OpenAI tokens": Reader(theirs, lambda path: read_tokens(path / "set"), False),
        "folder of images": Reader(images, read_folder, False),
        "images to complete": Reader(images, lambda path: read_pictures(open_images(path, 4)), False),
        "mask": Reader(mask, lambda path: read_mask(path / "mask.png", 4), False),
    }


def _openable(directory):
    """The config of a run on tokens, written there, which opens in a moment."""
    tokens = {"tokens": np.arange(160, dtype=np.int32).reshape(10, 16) % 17, "label": np.zeros(10, np.int32)}
    facts = {"fold_validation": False, "classes": 0, "resolution": 4}
    splits = {split: (10, lambda start: [tokens]) for split in ("train", "test")}
    write_tokens(directory / "openable", Palette(np.linspace(-1, 1, 51).reshape(17, 3)), facts, splits)
    data = DataConfig(name=f"tokens:{directory.absolute() / 'openable'}", batch_size=8, fold_validation=False)
    return dataclasses.replace(CONFIG, data=data, evaluate=EvaluateConfig(batch_size=8), steps=100)


def _load(path):
    model, params, palette = ig.load(path)
    return model.config, palette.colors if isinstance(palette, Palette) else None, params


def _digest(value):
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(value):
        digest.update(np.asarray(leaf).tobytes() if hasattr(leaf, "shape") else repr(leaf).encode())
    return digest.digest()


def _damage(path: pathlib.Path, draw: random.Random) -> str:
    content = path.read_bytes()
    kinds = ["truncate", "empty", "delete", "flip", "flip", "flip", "overwrite", "insert"]
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    kind = draw.choice([*kinds, "json", "json"] if isinstance(value, dict) else kinds)
    if kind == "delete":
        path.unlink()
        return kind
    place, noise = draw.randrange(max(len(content), 1)), draw.randbytes(draw.randint(1, 16))
    if kind == "truncate":
        content = content[:place]
    elif kind == "empty":
        content = b""
    elif kind == "flip" and content:
        content = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    elif kind == "overwrite":
        content = content[:place] + noise + content[place + len(noise) :]
    elif kind == "insert":
        content = content[:place] + noise + content[place:]
    elif kind == "json":
        node = value
        key = draw.choice(list(node))
        while isinstance(node[key], dict) and node[key] and draw.random() < 0.8:
            node = node[key]
            key = draw.choice(list(node))
        node[key] = draw.choice(hostile.VALUES)
        content = json.dumps(value).encode()
    path.write_bytes(content)
    return kind


def fuzz(directory: pathlib.Path, cases: int, seed: int) -> dict[str, collections.Counter]:
    """Spends the cases on all readers alike.  Returns the counts of each."""
    logging.set_verbosity(logging.FATAL)
    draw, tables = random.Random(seed), {}
    sound = directory / "sound"
    found = readers(sound)
    options = hostile.attempts(_openable(sound), sound)
    for name in (*found, *options):
        counts = tables[name] = collections.Counter()
        expected = None
        if name in found:
            with contextlib.redirect_stderr(io.StringIO()):
                expected = _digest(found[name].read(found[name].directory))
        for _ in range(cases // (len(found) + len(options))):
            counts["cases"] += 1
            case = directory / "case"
            before, what = set(), name
            if name in found:
                shutil.copytree(found[name].directory, case)
                victim = draw.choice(sorted(path for path in case.rglob("*") if path.is_file()))
                what = f"{_damage(victim, draw)} {victim.relative_to(case)}"
                before = set(case.rglob("*"))
            else:
                case.mkdir()
            try:
                with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                    value = found[name].read(case) if name in found else options[name](draw, case)
                same = expected is not None and _digest(value) == expected
                outcome = "unharmed" if same else "silent" if name in found and found[name].sealed else "another value"
            except ig.InputError as error:
                outcome = "refused" if str(error).strip() else "tracebacks"
            except Exception:
                outcome = "tracebacks"
                print(f"{name}: {what}", traceback.format_exc(limit=-3), file=sys.stderr)
            if outcome == "silent":
                print(f"{name}: {what} was accepted", file=sys.stderr)
            counts[outcome] += 1
            if name in found or outcome != "another value":
                counts["files left"] += len(set(case.rglob("*")) - before)
            shutil.rmtree(case)
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        tables = fuzz(pathlib.Path(directory), options.cases, options.seed)
    tables["all"] = sum(tables.values(), collections.Counter())
    print(f"{'':<26}" + "".join(f"{column:>14}" for column in COLUMNS))
    for name, counts in tables.items():
        print(f"{name:<26}" + "".join(f"{counts[column]:>14}" for column in COLUMNS))
    return int(any(tables["all"][column] for column in COLUMNS[4:]))


if __name__ == "__main__":
    sys.exit(main())
