"""The notebooks run from top to bottom, and their committed outputs come from such a run."""

import pathlib
import re

import nbclient
import nbformat
import pytest

from tests.data.test_emoji import needs_font

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "docs" / "notebooks"
NAMES = ["complete", "emoji", "probe", "weights"]


def read(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_outputs_are_of_one_run_in_order(name):
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not any(output.output_type == "error" for output in outputs)
    assert not re.search(r"/(root|home|Users|tmp)/", str(outputs))  # nothing of the machine that ran it


@pytest.mark.parametrize("name", ["complete", pytest.param("emoji", marks=needs_font), "probe", "weights"])
def test_a_notebook_runs_with_few_steps(name, tmp_path):
    notebook = read(name)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert parameters.source.startswith("STEPS = ")
    parameters.source = "STEPS = 10"
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises CellExecutionError at the first cell that fails
