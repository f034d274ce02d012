"""Metrics in trackio and in Weights & Biases, both without a network."""

import json
import struct

import pytest

from igpt_jax.train.metrics import read_metrics
from tests.train.runs import batches_cut_off_at_5, train, with_options


def loss_by_step(lines):
    return sorted((line["step"], line["nats_per_token"]) for line in lines if "nats_per_token" in line)


def interrupted_run(workdir, tracker):
    """The losses in the metrics file of a run that was cut off, with logged steps after its last checkpoint."""
    config = with_options(checkpoint_every=4, tracker=tracker)

    with pytest.raises(KeyboardInterrupt):
        train(workdir, config=config, batches_from=batches_cut_off_at_5)
    train(workdir, config=config)
    return loss_by_step(read_metrics(workdir / "metrics.jsonl"))


def read_log(path, header=7, block=32768):
    """The records of a file in LevelDB's log format, in which Weights & Biases keeps runs that are offline."""
    data, position, record = path.read_bytes(), header, b""
    while position + 7 <= len(data):
        if block - position % block < 7:  # a block's last bytes cannot hold a record
            position += block - position % block
            continue
        length, kind = struct.unpack("<4xHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last part
            yield record
            record = b""


def test_trackio_has_every_step_of_an_interrupted_run_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    monkeypatch.setenv("TRACKIO_PROJECT", "pixels")
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    written = interrupted_run(tmp_path / "run", "trackio")
    (name,) = storage.get_runs("pixels")
    assert loss_by_step(storage.get_logs("pixels", name)) == written
    assert len(written) == 6


def test_wandb_has_every_step_of_an_interrupted_run_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    written = interrupted_run(tmp_path / "run", "wandb")
    lines, names = [], set()
    for path in sorted(tmp_path.glob("run/wandb/offline-run-*/*.wandb")):
        names.add(path.name)
        for data in read_log(path):
            record = records.Record()
            record.ParseFromString(data)
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            if items:
                lines.append(items | {"step": items["_step"]})
    assert len(names) == 1  # both parts belong to one run
    assert loss_by_step(lines) == written
