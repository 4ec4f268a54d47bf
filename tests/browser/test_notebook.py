"""What a user sees in JupyterLab while a job runs, while an answer streams, and when the file is opened again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.tiny import make_reciter

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

DATA = """
import sys
sys.path.insert(0, {root!r})
from tests.tiny import instructions, texts
%load_ext byzerllm_magics
corpus, rows = texts(2000), instructions()
"""
SETUP = "%%byzerllm setup\nsingle\nnum_gpus=1"
JOB = """%%byzerllm run -o job
pretrainedModelType="sfft/llama"
name="{name}"
localModelDir="{model}"
localPathPrefix="jobs"
inputTable="corpus"
sfft.int.max_length="64"
sfft.int.max_steps="{steps}"
"""
DEPLOY = """%%byzerllm run
action="infer"
pretrainedModelType="llama"
localModelDir="{model}"
udfName="{name}"
"""


@pytest.fixture(scope="module", autouse=True)
def _cluster(cluster):
    """The kernels find the session's cluster."""


def data_cell() -> str:
    return DATA.format(root=str(Path(__file__).parents[2]))


def test_the_chart_grows_while_the_job_runs_and_ends_at_the_last_metric(lab, open_notebook, tiny_model):
    job = JOB.format(name="seen", model=tiny_model, steps=300)
    lab.write("chart.ipynb", [data_cell(), SETUP, job, "%byzerllm wait seen"])
    notebook = open_notebook("chart.ipynb")
    notebook.run(0)
    notebook.run(1, wait=60)
    begun = time.monotonic()
    notebook.run(2, wait=30)
    assert time.monotonic() - begun < 20, "the cell returns at once"

    chart = notebook.output(2).locator(".byzer-loss-chart")
    chart.wait_for(timeout=30_000)
    seen: list[int] = []
    last: dict[str, str] = {}
    while (card := notebook.glimpse(2, "byzer-job-card")) and card["state"] in ("preparing", "starting", "running"):
        points = int((notebook.glimpse(2, "byzer-loss-chart") or {}).get("points", 0))
        if points and (not seen or points > seen[-1]):
            seen.append(points)
            notebook.look(f"chart-{min(len(seen), 5)}")
        last = notebook.glimpse(2, "byzer-loss-chart") or last
        notebook.page.wait_for_timeout(100)
    assert len(seen) >= 4, f"it grew {len(seen) - 1} times: {seen}"

    notebook.run(3, wait=60)
    metrics = [json.loads(line) for line in (lab.folder / "jobs/seen/metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["step"] == 300
    assert float(last["loss"]) == pytest.approx(metrics[int(last["step"]) - 1]["loss"], rel=1e-6)
    text = notebook.output(2).inner_text()
    assert "finished" in text
    assert f"{metrics[-1]['loss']:.4g}" in text, text
    assert notebook.output(2).locator("img:visible").count() == 1
    notebook.look("chart-finished")

    notebook.save()
    reopened = without_kernel(lab, open_notebook, "chart.ipynb")
    reopened.look("chart-reopened")
    text = reopened.output(2).inner_text()
    assert "finished" in text
    assert f"{metrics[-1]['loss']:.4g}" in text, text
    picture = reopened.output(2).locator("img:visible")
    assert picture.count() == 1
    assert picture.evaluate("image => image.naturalWidth") > 300
    assert "model not found" not in reopened.page.inner_text("body")


def test_the_last_point_of_the_live_chart_is_the_newest_line_of_the_metrics(lab, open_notebook, tiny_model):
    job = JOB.format(name="last", model=tiny_model, steps=2000)
    lab.write("last.ipynb", [data_cell(), SETUP, job, "%byzerllm stop last"])
    notebook = open_notebook("last.ipynb")
    for cell in (0, 1, 2):
        notebook.run(cell)
    chart = notebook.output(2).locator(".byzer-loss-chart[data-points]:not([data-points='0'])")
    chart.wait_for(timeout=60_000)
    before = int(chart.get_attribute("data-points"))
    notebook.page.wait_for_timeout(1500)
    asked = time.time()
    shown = notebook.glimpse(2, "byzer-loss-chart")
    assert int(shown["points"]) > before
    metrics = [json.loads(line) for line in (lab.folder / "jobs/last/metrics.jsonl").read_text().splitlines()]
    point = metrics[int(shown["step"]) - 1]
    assert point["step"] == int(shown["step"]) == int(shown["points"])
    assert float(shown["loss"]) == pytest.approx(point["loss"], rel=1e-6)
    later = [record for record in metrics if point["time"] < record["time"] < asked - 5]
    assert not later, "the chart is more than five seconds behind"
    notebook.run(3)
    assert "saves a checkpoint" in notebook.output(3).inner_text()


def test_an_answer_streams_into_its_cell_and_stays_after_reopening_without_a_kernel(lab, open_notebook, tmp_path):
    chat = "%llm_chat -m streamer --max-tokens 800 --temperature 0 Tell me about the red house."
    model = make_reciter(tmp_path / "reciter")
    lab.write("chat.ipynb", [data_cell(), SETUP, DEPLOY.format(model=model, name="streamer"), chat])
    notebook = open_notebook("chat.ipynb")
    for cell in (0, 1, 2):
        notebook.run(cell)
    notebook.run(3, wait=None)
    notebook.output(3).locator(".byzer-chat").wait_for(timeout=20_000)
    lengths: list[int] = []
    while (view := notebook.glimpse(3, "byzer-chat")) and view["state"] in ("waiting", "streaming"):
        length = len(view["text"])
        if not lengths or length > lengths[-1]:
            lengths.append(length)
        notebook.page.wait_for_timeout(20)
    assert len(lengths) >= 3, f"it came in {len(lengths)} steps"
    notebook.ended(3)
    assert "tokens/s" in notebook.output(3).inner_text()
    notebook.look("chat")
    notebook.save()

    saved = json.loads((lab.folder / "chat.ipynb").read_text())
    assert "widgets" not in saved["metadata"]
    reopened = without_kernel(lab, open_notebook, "chat.ipynb")
    reopened.look("chat-reopened")
    text = reopened.output(3).inner_text()
    assert "Tell me about the red house." in text
    assert "tokens/s" in text
    assert "model not found" not in reopened.page.inner_text("body")


def test_a_restarted_kernel_attaches_to_the_running_job_and_sees_the_whole_curve(lab, open_notebook, tiny_model):
    job = JOB.format(name="again", model=tiny_model, steps=1500)
    cells = [data_cell(), SETUP, job, "get_ipython().kernel.do_shutdown(restart=True)"]
    lab.write("again.ipynb", [*cells, "%load_ext byzerllm_magics\n%byzerllm attach again", "%byzerllm stop again"])
    notebook = open_notebook("again.ipynb")
    for cell in (0, 1, 2):
        notebook.run(cell)
    notebook.output(2).locator(".byzer-loss-chart[data-points]:not([data-points='0'])").wait_for(timeout=60_000)
    notebook.page.wait_for_timeout(1500)
    notebook.run(3, wait=None)
    notebook.page.locator(".jp-Dialog button:has-text('Ok')").click(timeout=30_000)  # "it will restart"
    notebook.page.wait_for_timeout(2000)
    notebook.run(4)
    chart = notebook.output(4).locator(".byzer-loss-chart[data-points]:not([data-points='0'])")
    chart.wait_for(timeout=30_000)
    first = int(chart.get_attribute("data-points"))
    notebook.page.wait_for_timeout(2000)
    assert int(chart.get_attribute("data-points")) > first > 1
    steps = [json.loads(line)["step"] for line in (lab.folder / "jobs/again/metrics.jsonl").read_text().splitlines()]
    assert steps[:3] == [1, 2, 3]
    notebook.run(5)


def test_an_error_is_a_few_lines_in_the_page(lab, open_notebook):
    lab.write("error.ipynb", ["%load_ext byzerllm_magics", '%%byzerllm run\nation="infer" and udfName="x"'])
    notebook = open_notebook("error.ipynb")
    notebook.run(0)
    notebook.run(1)
    text = notebook.output(1).inner_text()
    assert "ation" in text
    assert "^" in text
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) <= 5


def without_kernel(lab, open_notebook, name: str):
    """Open a copy of a saved notebook whose kernelspec does not exist, so that no kernel starts."""
    saved = json.loads((lab.folder / name).read_text())
    saved["metadata"]["kernelspec"] = {"name": "none-of-this-name", "display_name": "none", "language": "python"}
    (lab.folder / f"copy-{name}").write_text(json.dumps(saved))
    notebook = open_notebook(f"copy-{name}")
    dialog = notebook.page.locator(".jp-Dialog button:has-text('No Kernel'), .jp-Dialog button:has-text('Cancel')")
    if dialog.count():
        dialog.first.click()
    return notebook
