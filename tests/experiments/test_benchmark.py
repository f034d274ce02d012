"""The files and the table of the benchmark; speed itself is measured by running it."""

import json

from experiments.benchmark.__main__ import write
from experiments.benchmark.measure import Result, machine
from experiments.benchmark.table import main


def results(ratio):
    compared = Result("train", "images/s", 9.0 * ratio, "torch", 9.0, (ratio, ratio - 0.1, ratio + 0.1))
    return [compared, Result("start", "s, less is better", 10.0 / ratio)]


def test_every_machine_has_a_file_of_its_own_and_the_table_shows_the_range(tmp_path, capsys):
    write(tmp_path, "train", results(1.5), machine() | {"processor": "AMD EPYC with AVX-512"})
    write(tmp_path, "train", results(0.5), machine() | {"processor": "Intel(R) Xeon(R) with AMX"})
    write(tmp_path, "train", results(0.8), machine() | {"processor": "Intel(R) Xeon(R) with AMX"})  # once more
    write(tmp_path, "growth", results(2.0), machine() | {"processor": "Intel(R) Xeon(R) with AMX"})
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["amd-epyc-with-avx-512.json", "intel-r-xeon-r-with-amx.json"]
    assert json.loads((tmp_path / files[1]).read_text())["train"]["results"][0]["ratio"] == 0.8
    assert main([str(tmp_path / name) for name in files]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| | beside | amd-epyc-with-avx-512 | intel-r-xeon-r-with-amx | range |"
    assert table[2] == "| train | times torch | 1.5 | 0.8 | 0.8 to 1.5 |"
    assert table[3] == "| start | s, less is better | 6.67 | 12.5 | 6.67 to 12.5 |"
    assert len(table) == 4


def test_without_files_the_table_asks_for_them(capsys):
    assert main([]) == 2
    assert "name the files" in capsys.readouterr().err
