"""The quickstart notebook: executed as `make quickstart` does it, and as it is committed."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_quickstart_learns_what_it_says(cluster, tmp_path):
    from byzerllm_magics.headless import execute, summary

    executed = execute(NOTEBOOK, tmp_path, {"owner": "quickstart_test"})
    text = summary(executed)
    before, after = map(int, re.search(r"(\d+)% before, (\d+)% after", text).groups())
    control = int(re.search(r"control .*: (\d+)%", text).group(1))
    assert before <= 10, text
    assert after >= 90, text
    assert control <= 10, text
    assert "Hello, Ralovin!" in text
    saved = nbformat.read(tmp_path / "quickstart.ipynb", as_version=4)
    assert charts(saved) == 3
    assert_readable_without_a_kernel(saved)
    assert "Hello, Ralovin!" in (tmp_path / "quickstart.html").read_text("utf-8")


def test_the_committed_notebook_shows_charts_and_answers_to_a_reader_who_only_scrolls():
    saved = nbformat.read(NOTEBOOK, as_version=4)
    assert charts(saved) == 3
    assert_readable_without_a_kernel(saved)
    assert any("Hello, Ralovin!" in str(cell.get("outputs")) for cell in saved.cells)
    assert not re.search(r"/(root|home|tmp|Users)/", NOTEBOOK.read_text("utf-8")), "a path of its author's machine"


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
