"""The graph of runs, the tables and the claims of `python -m experiments.reproduce`."""

import json
import pathlib
import subprocess

import numpy as np
import pytest
from PIL import Image

from experiments import claims, codes_and_pixels, figure3_loss_and_probe, in_color, longer_bert, on_codes, paper, scales
from experiments.reproduce import TABLES, main, table_modules
from experiments.runs import Job, finished, in_order
from experiments.scheduler import Scheduler, Task
from experiments.tables import Row, markdown, measure
from igpt_jax.errors import InputError

PRINTED = {
    "table1": ("Table 1",),
    "table2": ("Table 2", "Section 4.4 text"),
    "table3": ("Table 3", "Section 4.5 text"),
    "table4": ("Table 4", "Section 4.7 text"),
    "table5": ("Table 5",),
}


def rows_of(table, scale):
    return table_modules(table)[table].rows(scale)


def runs_of(scale, *tables):
    return in_order(row.job for table in tables for row in rows_of(table, scale) if row.job)


@pytest.mark.parametrize("scale", ["paper", "miniature"])
def test_a_run_is_made_once_and_after_what_it_needs(scale):
    runs = runs_of(scale, *TABLES)
    places = {run: place for place, run in enumerate(runs)}
    assert len(places) == len({run.name for run in runs}) == len(runs)
    for run in runs:
        assert all(places[needed] < places[run] for _, needed in run.inputs)
    apart = [runs_of(scale, table) for table in TABLES]
    assert set(runs) == set().union(*apart)
    assert sum(map(len, apart)) > 1.5 * len(runs)  # the tables share many of them


def test_the_longer_bert_run_is_measured_where_its_rows_read():
    rows = rows_of("longer_bert", "miniature")
    config = longer_bert.get_config()
    steps = [int(row.key.removeprefix("nats-")) for row in rows if row.unit == "nats/token"]
    assert steps == list(range(config.evaluate.every, config.steps + 1, config.evaluate.every))
    assert config.steps == 8 * scales.STEPS
    assert len({row.key for row in rows}) == len(rows)
    tuned = {row.job.name: dict(row.job.inputs)["from"].name for row in rows if row.setting == "fine-tuned"}
    assert set(tuned.values()) == {"pretrain-longer-bert-l32", "pretrain-ar-l32"}
    with pytest.raises(InputError, match="in the miniature alone"):
        rows_of("longer_bert", "paper")


def test_the_runs_in_color_are_measured_where_their_rows_read():
    rows = rows_of("in_color", "miniature")
    assert len({row.key for row in rows}) == len(rows)
    for job in {row.job for row in rows}:
        config = in_color.get_config(",".join(job.arguments))
        keys = {row.key.removeprefix(job.name.removeprefix("pretrain-")) for row in rows if row.job == job}
        measured = range(config.evaluate.every, config.steps + 1, config.evaluate.every)
        assert keys >= {f"-{step}-{what}" for step in measured for what in ("nats", "probe")}
        assert keys >= {f"-layer-{layer}" for layer in range(config.model.layers + 1)}
        assert config.evaluate.probe.layers == ()  # all of them
        assert config.data.name in job.name


def test_figures_in_color_are_drawn_of_the_data_that_was_measured(tmp_path):
    rows = [
        {"key": row.key, "values": {"0": 1.0} if row.job.name == "pretrain-photographs-6" else {}}
        | {"mean": 1.0, "std": None}
        for row in rows_of("in_color", "miniature")
    ]
    in_color.draw(tmp_path / "figure.png", rows)
    assert {path.name for path in tmp_path.iterdir()} == {"layers-photographs.png", "loss-photographs.png"}


def test_codes_and_pixels_are_probed_through_the_same_layers_at_the_same_context_length(tmp_path):
    rows = rows_of("codes_and_pixels", "miniature")
    assert len({row.key for row in rows}) == len(rows)
    codes, pixels = (on_codes.get_config(",".join(job.arguments)) for job in runs_of("miniature", "codes_and_pixels"))
    assert codes.model == pixels.model
    for kind in ("codes", "pixels"):
        layers = [row.key for row in rows if row.key.startswith(f"{kind}-layer-")]
        assert layers == [f"{kind}-layer-{layer}" for layer in range(codes.model.layers + 1)]
    measured = [{"name": row.name, "key": row.key, "values": {"0": 1.0}, "mean": 1.0, "std": None} for row in rows]
    codes_and_pixels.draw(tmp_path / "figure.png", measured)
    assert (tmp_path / "figure.png").stat().st_size


def test_tables_that_are_read_from_the_same_runs_need_no_more():
    assert runs_of("miniature", "table4") == runs_of("miniature", "figure2") == runs_of("miniature", "table1")


def test_two_runs_of_one_name_are_refused():
    first, second = Job("a", "train", "digits.py", ("x=1",)), Job("a", "train", "digits.py", ("x=2",))
    with pytest.raises(InputError, match="two different runs are called a"):
        in_order([first, Job("b", "train", "digits.py", (), (("from", second),))])


def test_the_other_seeds_wait_for_the_search_of_the_first(tmp_path):
    run = Job("tuned", "train", "x.py", (), (("from", Job("base", "train", "x.py", ())),), rates=(0.1, 0.01))
    tasks = Scheduler(tmp_path, (4, 5), "test", 1, {}).tasks([run])
    assert tasks[Task(run, 4)] == {Task(run.inputs[0][1], 4)}
    assert tasks[Task(run, 5)] == {Task(run.inputs[0][1], 5), Task(run, 4)}
    assert list(tasks).index(Task(run, 4)) < list(tasks).index(Task(run, 5))


def test_the_first_seed_searches_the_rate_and_every_best_run_is_measured_again(tmp_path, monkeypatch):
    held_out = {0.1: 50.0, 0.03: 80.0, 0.01: 70.0, 0.003: 99.0}  # the search ends at 0.01
    commands = []

    def run(command, **_):
        """Stands for `python -m igpt_jax`: leaves the accuracy that the rate has."""
        commands.append([argument for argument in command[3:] if argument != "--report=False"])
        workdir = pathlib.Path(command[-1].removeprefix("--workdir="))
        rate = float(workdir.name.removeprefix("rate-"))
        (workdir / "metrics.jsonl").write_text(json.dumps({"step": 1, "validation/accuracy": held_out[rate]}) + "\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    tuned = Job("tuned", "train", "x.py", ("a=1",), rates=tuple(held_out))
    assert Scheduler(tmp_path, (4, 5), "test", 1, {}).make([tuned]) == []
    trained = [command[1] for command in commands if command[0] == "train"]
    assert trained == [f"--config=experiments/x.py:a=1,rate={rate}" for rate in (0.1, 0.03, 0.01, 0.03)]
    measured = [command for command in commands if command[0] == "evaluate"]
    assert measured == [
        ["evaluate", "--split=test", f"--workdir={tmp_path}/tuned-seed{seed}/rate-0.03"] for seed in (4, 5)
    ]
    assert finished(tuned, tmp_path, 4)["held_out"] == {"0.1": 50.0, "0.03": 80.0, "0.01": 70.0}
    assert finished(tuned, tmp_path, 5)["rate"] == 0.03
    assert Scheduler(tmp_path, (4, 5), "test", 1, {}).missing_commands([tuned]) == []


def test_a_run_that_fails_is_named_with_its_log_and_what_needs_it_is_left(tmp_path, capfd):
    bad = Job("bad", "train", "table5_pretrain.py", ("size=tiny",))
    needs_it = Job("needs-it", "train", "table5_pretrain.py", ("size=s",), (("from", bad),))
    failures = Scheduler(tmp_path, (0,), "test", 1, {"PATH": "", "JAX_PLATFORMS": "cpu"}).make([needs_it])
    log = tmp_path / "bad-seed0" / "log.txt"
    assert "size=tiny is not one of s, m, l, xl" in log.read_text()
    assert failures[0].startswith("bad-seed0 failed: igpt_jax train: size=tiny is not one of s, m, l, xl\n")
    assert str(log) in failures[0]
    assert failures[1] == "needs-it-seed0 was not run, since what it needs failed"
    assert "bad-seed0 failed" in capfd.readouterr().err


@pytest.mark.parametrize("scale", ["paper", "miniature"])
@pytest.mark.parametrize("table", PRINTED)
def test_a_table_has_every_row_that_the_paper_prints(table, scale, tmp_path):
    module = table_modules(table)[table]
    text = markdown(module.TITLE, [measure(row, tmp_path, (0,)) for row in module.rows(scale)])
    lines = text.splitlines()
    for entry in (entry for printed in PRINTED[table] for entry in paper.entries(printed)):
        value = 100 - entry["value"] if entry["metric"] == "error_pct" else entry["value"]
        shown = f"{value:g}" if table == "table5" else f"{value:.1f}"
        if "std" in entry:
            shown += f" ± {entry['std']:.1f}"
        assert any(f"| {entry['method']} |" in line and shown in line for line in lines), entry


def test_what_nobody_can_rerun_says_so():
    for table in ("table2", "table5"):
        found = [row for row in rows_of(table, "paper") if row.name == "iGPT-XL"]
        assert found
        assert all(row.job is None and "private" in row.remark for row in found)
    assert any("suspicious" in row.remark and row.paper == 0.01 for row in rows_of("table5", "paper"))


def test_keys_are_one_of_a_kind():
    for scale in ("paper", "miniature"):
        for table in TABLES:
            keys = [row.key for row in rows_of(table, scale) if row.key]
            assert len(keys) == len(set(keys))


def as_expected(scale="miniature"):
    """Every table with the values that the paper would have: by key, a mean and what each seed adds."""
    values = {
        ("figure2", "first-minus-best"): -20,
        ("figure2", "last-minus-best"): -2,
        ("table2", "s32"): 60,
        ("table2", "m32"): 70,
        ("table2", "l32"): 80,
        ("figure4", "cifar10-probe-ar"): 90,
        ("figure4", "cifar10-probe-bert"): 80,
        ("figure4", "cifar10-finetune-ar"): 97,
        ("figure4", "cifar10-finetune-bert"): 96,
        ("figure4", "cifar10-probe-bert-vote"): 82,
        ("figure4", "cifar10-finetune-bert-vote"): 97,
        ("table3", "cifar10"): 97,
        ("table3", "cifar10-class-only"): 96,
        ("table3", "scratch"): 90,
        ("table4", "4"): 60,
        ("table4", "4-pixels"): 25,
        ("table4", "25"): 80,
        ("table4", "25-pixels"): 30,
        ("ablations", "mask15"): 60,
        ("ablations", "mask20"): 60,
        ("ablations", "mask35"): 50,
    }
    for size in ("s", "m", "l"):
        for place, step in enumerate(figure3_loss_and_probe.steps("miniature")):
            values["figure3", f"{size}-{step}-nats"] = 1 - place / 10
            values["figure3", f"{size}-{step}-probe"] = 60 + 5 * place
    return values


def decide(values, spread=0.1, wanted="all"):
    tables = {}
    for place, ((table, key), value) in enumerate(values.items()):
        drawn = np.random.default_rng(place).normal(value, spread, 3)
        tables.setdefault(table, []).append({"key": key, "values": dict(enumerate(drawn))})
    return claims.decide(claims.claims(wanted, "miniature"), tables, f"python -m experiments.reproduce {wanted}")


def test_the_paper_holds_where_it_is_as_the_paper_says():
    decided = decide(as_expected(), spread=0.01)
    assert len(decided) == 10
    assert [found["held"] for found in decided] == [True] * 10
    assert decided[3]["figures"]["AR - BERT, probed"]["mean"] == pytest.approx(10, abs=0.1)
    assert decided[3]["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("fallen", "change"),
    [
        ([1], {("figure2", "last-minus-best"): 0}),
        ([1], {("figure2", "first-minus-best"): 3}),
        ([2], {("figure3", f"{size}-{step}-probe"): 99 - step / 100 for size in "sml" for step in (250, 500)}),
        ([3], {("table2", "m32"): 81}),
        ([4, 5], {("figure4", "cifar10-probe-ar"): 79, ("figure4", "cifar10-finetune-bert"): 97}),
        ([5], {("figure4", "cifar10-finetune-bert"): 85}),
        ([5], {("figure4", "cifar10-finetune-ar"): 80}),
        ([6], {("table3", "cifar10-class-only"): 99}),
        ([7], {("table3", "scratch"): 98}),
        ([8], {("figure4", "cifar10-finetune-bert-vote"): 95}),
        ([9], {("table4", "25-pixels"): 71}),
        ([10], {("ablations", "mask20"): 55}),
        ([10], {("ablations", "mask35"): 61}),
    ],
)  # fmt: skip
def test_each_claim_falls_where_its_numbers_do(fallen, change):
    decided = decide(as_expected() | change, spread=0.01)
    assert [place for place, found in enumerate(decided, start=1) if not found["held"]] == fallen


def test_tables_beyond_the_paper_decide_claims_by_the_same_rules():
    color = {
        ("in_color", f"{data}-{layers}-{end}-minus-best"): value
        for data in in_color.DATA
        for layers in in_color.DEPTHS
        for end, value in (("first", -20), ("last", -2))
    }
    color["in_color", "blended_digits-3-last-minus-best"] = 0
    decided = decide(color, 0.01, "in_color")
    assert [found["claim"] for found in decided if not found["held"]] == [
        "Accuracy by layer rises, then falls, on blended digits, with 3 layers"
    ]
    assert len(decided) == 6
    bert = {("longer_bert", key): value for (table, key), value in as_expected().items() if table == "figure4"}
    assert [found["held"] for found in decide(bert, 0.01, "longer_bert")] == [True, True]
    bert["longer_bert", "cifar10-probe-bert"] = 90.5
    assert [found["held"] for found in decide(bert, 0.01, "longer_bert")] == [False, False]
    for table, values in (("in_color", color), ("longer_bert", bert)):
        assert {key for _, key in values} <= {row.key for row in rows_of(table, "miniature")}


def test_a_difference_within_its_standard_error_is_none():
    found = claims.Difference.of(np.array([1.0, 2.0, 6.0]))
    assert found.mean == 3
    assert found.error == pytest.approx(np.sqrt(7) / np.sqrt(3))
    assert found.exceeds()
    assert not found.exceeds(2)
    assert not claims.Difference.of(np.array([-1.0, 2.0, 0.5])).exceeds()
    assert claims.Difference.of(np.array([-1.0, 2.0, 0.5])).includes_zero(1)


def test_one_seed_decides_no_claim():
    tables = {"table3": [{"key": key, "values": {0: 1.0}} for key in ("cifar10", "scratch")]}
    (claim,) = (claim for claim in claims.claims("all", "miniature") if "from scratch" in claim.claim)
    with pytest.raises(InputError, match="table3 has fewer than two seeds"):
        claims.decide([claim], tables, "command")


def test_deviations_are_over_the_seeds():
    row = {"name": "a", "setting": "b", "unit": "%", "paper": 41.9, "paper_std": None, "remark": "", "key": ""}
    values = {0: 50.0, 1: 60.0}
    shown = markdown("t", [row | {"values": values, "mean": 55.0, "std": float(np.std([50, 60], ddof=1))}])
    assert "| a | b | 55.0 ± 7.1 % | 41.9 % |" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9"], "there is no table 'table9'; choose one of all, table1"),
        (["table1", "--jobs=0"], "--jobs=0 must be at least 1"),
        (["table1", "--seeds=1,1"], "--seeds=1,1 is no list of different whole numbers"),
    ],
)
def test_input_that_cannot_work_is_named(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--scale=miniature", f"--workdir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_the_missing_commands_are_listed(tmp_path, capsys):
    assert main(["table1", "--scale=paper", f"--workdir={tmp_path}", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("python -m igpt_jax train --config=experiments/table5_pretrain.py:size=l,resolution=32")
    assert f"from={tmp_path}/pretrain-ar-l32-seed0" in lines[1]
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_nobody_ran_has_no_number(tmp_path):
    run = Job("absent", "train", "x.py", ())
    found = measure(Row("iGPT-L", "x", 96.3, job=run, read=lambda result: 1.0), tmp_path, (0, 1))
    assert (found["values"], found["run"]) == ({}, "absent")
    assert "mean" not in found


@pytest.mark.parametrize("scale", ["paper", "miniature"])
@pytest.mark.parametrize("table", [table for table in TABLES if table.startswith("figure")])
def test_a_figure_is_drawn_from_its_rows_even_where_some_are_missing(table, scale, tmp_path):
    module = table_modules(table)[table]
    rows = [measure(row, tmp_path, (0,)) for row in module.rows(scale)]
    for place, row in enumerate(rows):
        if place < len(rows) - 2:
            row |= {"values": {0: 50.0 + place}, "mean": 50.0 + place, "std": None}
    module.draw(tmp_path / "figure.png", rows)
    with Image.open(tmp_path / "figure.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert (0x1F, 0x6F, 0x8B) in colors  # the accent, in which the last curve or the bars are drawn
