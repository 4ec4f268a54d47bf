import threading

import pytest

from byzerllm_magics.widgets.live_output import WIDGET_VIEW, LiveOutput
from byzerllm_magics.widgets.loss_chart import LossChart
from byzerllm_magics.widgets.twins import job_bundle


class Notebook:
    """What a notebook shows: one bundle a display id."""

    def __init__(self):
        self.outputs = {}
        self.messages = 0

    def __call__(self, data, metadata, *, display_id, update):
        assert update == (display_id in self.outputs)
        self.outputs[display_id] = data
        self.messages += 1

    def charts(self):
        return sum("<img" in data.get("text/html", "") for data in self.outputs.values())


@pytest.fixture
def notebook():
    return Notebook()


@pytest.fixture
def chart():
    return LossChart()


def test_while_it_runs_the_view_is_live_and_the_chart_is_there_once(notebook, chart, make_state):
    LiveOutput(notebook).show(chart, job_bundle(make_state()), hider=chart)
    live, still = notebook.outputs.values()
    assert live[WIDGET_VIEW]["model_id"] == chart.model_id
    assert "image/png" not in live
    assert f'class="{chart.hides}"' in still["text/html"]
    assert notebook.charts() == 1


def test_at_the_end_no_widget_is_left_and_the_chart_is_there_once(notebook, chart, make_state):
    output = LiveOutput(notebook)
    output.show(chart, job_bundle(make_state()), hider=chart)
    output.settle(job_bundle(make_state(20, state="finished")))
    settled, still = notebook.outputs.values()
    assert WIDGET_VIEW not in settled
    assert {"image/png", "text/plain"} <= set(settled)
    assert not any(still.values())
    assert notebook.charts() == 1


def test_what_is_settled_stays(notebook, chart, make_state):
    output = LiveOutput(notebook)
    output.show(chart, job_bundle(make_state()), hider=chart)
    output.settle(job_bundle(make_state(20, state="finished")))
    before = dict(notebook.outputs)
    output.settle(job_bundle(make_state(30)))
    output.snapshot(lambda: job_bundle(make_state(30)))
    assert notebook.outputs == before


def test_a_snapshot_is_drawn_at_most_every_thirty_seconds(notebook, chart, make_state):
    now, drawn = [0.0], []
    output = LiveOutput(notebook, clock=lambda: now[0])
    output.show(chart, job_bundle(make_state()), hider=chart)

    def draw():
        drawn.append(now[0])
        return job_bundle(make_state())

    for second in range(0, 61, 5):
        now[0] = float(second)
        output.snapshot(draw)
    assert drawn == [0.0, 30.0, 60.0]


def test_without_a_hider_the_twin_is_part_of_the_one_output(notebook, chart):
    output = LiveOutput(notebook)
    output.show(chart, ({"text/markdown": "hi", "text/plain": "hi"}, {}))
    output.snapshot(lambda: pytest.fail("nothing to refresh"))
    (live,) = notebook.outputs.values()
    assert set(live) == {WIDGET_VIEW, "text/markdown", "text/plain"}
    output.settle(({"text/markdown": "hello", "text/plain": "hello"}, {}))
    assert list(notebook.outputs.values()) == [{"text/markdown": "hello", "text/plain": "hello"}]


def test_many_threads_settle_once(notebook, chart, make_state):
    output = LiveOutput(notebook)
    output.show(chart, job_bundle(make_state()), hider=chart)
    bundle = job_bundle(make_state(state="failed"))
    threads = [threading.Thread(target=output.settle, args=(bundle,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert notebook.messages == 4


def test_without_a_kernel_only_the_end_is_printed(capsys, chart, make_state):
    output = LiveOutput()
    output.show(chart, job_bundle(make_state()), hider=chart)
    output.snapshot(lambda: job_bundle(make_state()))
    assert capsys.readouterr().out == ""
    output.settle(job_bundle(make_state(100, state="finished")))
    assert capsys.readouterr().out.startswith("sft-demo (sft): finished\n")


def test_a_kernel_gets_pictures_as_base64_under_a_display_id(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    from byzerllm_magics.widgets import live_output

    calls = []
    shell = type(
        "Shell",
        (),
        {"kernel": object(), "display_pub": type("P", (), {"publish": lambda _s, **k: calls.append(k)})()},
    )
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(InteractiveShell, "instance", lambda: shell)
    live_output.kernel_publish()({"image/png": b"\x01"}, {}, display_id="a", update=True)
    assert calls == [{"data": {"image/png": "AQ=="}, "metadata": {}, "transient": {"display_id": "a"}, "update": True}]
