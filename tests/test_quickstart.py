"""The quickstart notebook: executed as `make quickstart` does it, and as it is committed."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from papermill import inspect_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def folder(cluster, tmp_path_factory):
    """The folder of an executed quickstart."""
    from byzerllm_magics.headless import execute

    folder = tmp_path_factory.mktemp("quickstart")
    execute(NOTEBOOK, folder, {"owner": "quickstart_test"})
    return folder


def accuracy(folder: Path) -> tuple[int, int, int]:
    """`accuracy_in` the executed notebook."""
    return accuracy_in(nbformat.read(folder / NOTEBOOK.name, as_version=4))


def accuracy_in(notebook: nbformat.NotebookNode) -> tuple[int, int, int]:
    """Exact match in percent as the notebook printed it: before, after, control."""
    from byzerllm_magics.headless import summary

    text = summary(notebook)
    before, after = re.search(r"(\d+)% before, (\d+)% after", text).groups()
    return int(before), int(after), int(re.search(r"control .*: (\d+)%", text).group(1))


@pytest.mark.cluster
def test_the_quickstart_runs_and_its_saved_file_is_readable(folder):
    saved = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    assert charts(saved) == 3
    assert_readable_without_a_kernel(saved)
    assert "Greet Lokeren." in (folder / "quickstart.html").read_text("utf-8")


@pytest.mark.cluster
def test_neither_the_base_nor_the_control_follows_instructions(folder):
    before, _, control = accuracy(folder)
    assert before <= 10
    assert control <= 10


@pytest.mark.cluster
def test_the_fine_tuned_model_follows_instructions_about_held_out_names(folder):
    assert accuracy(folder)[1] >= 90


def test_the_committed_notebook_shows_charts_and_answers_to_a_reader_who_only_scrolls():
    saved = nbformat.read(NOTEBOOK, as_version=4)
    assert charts(saved) == 3
    assert_readable_without_a_kernel(saved)
    assert any("Greet Lokeren." in str(cell.get("outputs")) for cell in saved.cells)
    assert not re.search(r"/(root|home|tmp|Users)/", NOTEBOOK.read_text("utf-8")), "a path of its author's machine"


def test_the_committed_outputs_are_those_of_the_committed_cells():
    saved = nbformat.read(NOTEBOOK, as_version=4)
    source = "\n".join(cell.source for cell in saved.cells)
    steps = int(re.search(r"pretrain_steps = (\d+)", source)[1])
    assert f"step {steps} of {steps}, 2 workers" in str(saved.cells)
    before, after, control = accuracy_in(saved)
    assert before <= 10
    assert control <= 10
    assert after >= 90


def test_papermill_finds_the_parameters_and_puts_its_own_behind_them():
    assert {"work_dir", "owner", "pretrain_steps"} <= inspect_notebook(str(NOTEBOOK)).keys()
    cells = parameterize_notebook(load_notebook_node(str(NOTEBOOK)), {"work_dir": "elsewhere"}).cells
    tags = [cell.metadata.get("tags", []) for cell in cells]
    [own] = [i for i, tag in enumerate(tags) if "parameters" in tag]
    assert "injected-parameters" in tags[own + 1]
    assert 'work_dir = "elsewhere"' in cells[own + 1].source


def charts(notebook: nbformat.NotebookNode) -> int:
    """Count the pictures of charts in the outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def assert_readable_without_a_kernel(notebook: nbformat.NotebookNode) -> None:
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), cell.source
            assert output.output_type != "error", cell.source
