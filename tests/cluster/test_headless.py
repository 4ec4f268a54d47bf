"""A notebook that runs without a browser: a job, a chat, and a file that anyone can read afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from byzerllm_magics.headless import execute, summary
from byzerllm_magics.widgets.live_output import WIDGET_VIEW
from tests.cluster.helpers import pretraining

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

KILOBYTE = 1000


@pytest.fixture(scope="module")
def page(
    session: Any, tiny_model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, nbformat.NotebookNode]:
    """The output folder of an executed notebook, and the notebook as it was saved there."""
    folder = tmp_path_factory.mktemp("headless")
    keys = pretraining(tiny_model, corpus, folder, name="paged", stage=2)
    cells = [
        new_code_cell("question = 'nobody asked'", metadata={"tags": ["parameters"]}),
        new_code_cell("%load_ext byzerllm_magics"),
        new_code_cell("%%byzerllm setup\nsfft\nnum_gpus=2\nowner=reader"),
        new_code_cell("%%byzerllm run\n" + "\n".join(f"and `{key}`='''{value}'''" for key, value in keys.items())),
        new_code_cell("%byzerllm wait paged"),
        new_code_cell(f'%%byzerllm run\naction="infer" and localModelDir="{folder}/paged/model" and udfName="reader"'),
        new_code_cell("%llm_chat -m reader --temperature 0 --max-tokens 12 -o answer The red"),
        new_code_cell("print(question, len(answer))", metadata={"tags": ["summary"]}),
        new_code_cell("%byzerllm undeploy reader"),
        new_markdown_cell("The end."),
    ]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = folder / "source" / "page.ipynb"
    source.parent.mkdir()
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), source)
    execute(source, folder, {"question": "the red"})
    return folder, nbformat.read(folder / "page.ipynb", as_version=4)


def outputs(page: nbformat.NotebookNode, magic: str) -> list[Any]:
    """The outputs of the one cell that begins so."""
    (cell,) = [cell for cell in page.cells if cell.source.startswith(magic)]
    return list(cell.outputs)


def test_the_saved_file_needs_no_widgets(page: tuple[Path, nbformat.NotebookNode]) -> None:
    _, saved = page
    assert "widgets" not in saved.metadata
    kinds = {kind for cell in saved.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert kinds
    assert WIDGET_VIEW not in kinds


def test_the_jobs_own_cell_holds_its_chart_and_its_summary(page: tuple[Path, nbformat.NotebookNode]) -> None:
    shown = [output.data for output in outputs(page[1], "%%byzerllm run\nand") if "data" in output]
    (picture,) = [data for data in shown if "image/png" in data]
    assert "paged (sfft): finished" in picture["text/plain"]
    assert "step 40 of 40" in picture["text/plain"]


def test_the_answer_is_markdown(page: tuple[Path, nbformat.NotebookNode]) -> None:
    shown = [output.data for output in outputs(page[1], "%llm_chat") if "data" in output]
    (answer,) = [data for data in shown if "text/markdown" in data]
    assert answer["text/markdown"].startswith("> The red")
    assert "tokens" in answer["text/plain"]


def test_waiting_says_how_the_job_ended(page: tuple[Path, nbformat.NotebookNode]) -> None:
    (output,) = outputs(page[1], "%byzerllm wait")
    assert output.text.startswith("Job paged finished: 40 steps")
    assert output.text.count("\n") == 1


def test_parameters_reach_the_summary(page: tuple[Path, nbformat.NotebookNode]) -> None:
    assert summary(page[1]).startswith("the red ")


def test_a_run_takes_little_room(page: tuple[Path, nbformat.NotebookNode]) -> None:
    assert (page[0] / "page.ipynb").stat().st_size < 100 * KILOBYTE


def test_the_page_is_written_as_html_with_picture_and_answer(page: tuple[Path, nbformat.NotebookNode]) -> None:
    html = (page[0] / "page.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in html
    assert "paged (sfft): finished" in html
