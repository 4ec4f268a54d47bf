import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from byzerllm_magics.widgets.twins import HEIGHT, WIDTH, chart_png, job_bundle, job_summary, sparkline


def test_the_picture_is_small_sharp_and_transparent(make_state):
    state = make_state(5000, total_steps=5000, checkpoints=[1000, 2000])
    state.series["loss"] += np.random.default_rng(0).normal(0, 0.3, 5000)
    data = chart_png(state)
    picture = Image.open(io.BytesIO(data))
    assert picture.size == (2 * WIDTH, 2 * HEIGHT)
    assert picture.convert("RGBA").getpixel((0, 0))[3] == 0
    assert len(data) <= 20_000


@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
def test_the_picture_reads_on_light_and_dark(make_state, background):
    page = Image.new("RGBA", (2 * WIDTH, 2 * HEIGHT), background)
    page.alpha_composite(Image.open(io.BytesIO(chart_png(make_state(100)))).convert("RGBA"))
    colours = np.asarray(page.convert("L")).astype(float)
    far = np.abs(colours - colours[0, 0]) > 60
    assert far.mean() > 0.005


def test_a_job_of_nans_and_a_job_of_one_step_can_be_drawn(make_state):
    state = make_state(1)
    assert chart_png(state)
    state.series["loss"][:] = np.nan
    assert chart_png(state)


def test_the_summary_says_what_a_chart_would(make_state):
    state = make_state(100, state="finished", folder="/jobs/sft-demo")
    assert job_summary(state).splitlines() == [
        "sft-demo (sft): finished",
        "progress   step 100 of 100, 2 workers, attempt 1",
        "loss       4 " + sparkline(state.series["loss"]) + " 1.03",
        "speed      3,200 tokens/s",
        "time       100 s",
        "model      /jobs/sft-demo/model",
    ]


def test_the_summary_has_the_newest_answers_in_a_line_each(make_state):
    samples = [{"step": 1200, "prompt": "Say\nit", "answer": "x" * 99}]
    assert f"sample     Say it → {'x' * 59}… (step 1,200)" in job_summary(make_state(samples=samples))


def test_a_job_without_metrics_has_words_and_no_picture(make_state):
    state = make_state(0, state="preparing", series={}, message="waiting for <2> CPUs")
    data, metadata = job_bundle(state)
    assert "image/png" not in data
    assert metadata == {}
    assert "&lt;2&gt;" in data["text/html"]


def test_the_bundle_has_the_picture_at_its_size_and_the_words(make_state):
    data, metadata = job_bundle(make_state())
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata == {"image/png": {"width": WIDTH, "height": HEIGHT}}
    assert data["text/plain"] in data["text/html"]


def test_a_sparkline_falls_with_its_values_and_leaves_gaps():
    assert sparkline(np.array([3, 2, np.nan, 1.0])) == "█▅ ▁"
    assert sparkline(np.array([2.0, 2.0])) == "▁▁"
    assert sparkline(np.array([np.nan])) == " "


def test_a_twin_loads_matplotlib_only_to_draw_and_never_pyplot():
    check = (
        "import sys; import byzerllm_magics.widgets; "
        "assert not {'anywidget', 'ipywidgets', 'numpy'} & set(sys.modules); "
        "import byzerllm_magics.widgets.twins as t, byzerllm_magics.widgets.job_state as j, numpy as np; "
        "assert 'matplotlib' not in sys.modules; "
        "s = j.JobState('a', 'f', 'sft', step=1, series={'step': np.ones(1), 'loss': np.ones(1)}); "
        "t.chart_png(s); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
