import numpy as np
import pytest

from byzerllm_magics.widgets.job_state import JobState


@pytest.fixture
def make_state():
    """Return a function that makes the state of a job after n steps."""

    def make(n=10, state="running", total_steps=100, **changes):
        step = np.arange(1, n + 1)
        series = {
            "step": step,
            "loss": 1.0 + 3.0 / step,
            "learning_rate": np.full(n, 2e-5),
            "grad_norm": np.ones(n),
            "tokens_per_second": np.full(n, 3200.0),
        }
        finished = None if state == "running" else 1000.0 + n
        known = {"folder": "/jobs/sft-demo", "workers": 2, "step": n, "series": series}
        known |= {"total_steps": total_steps, "started": 1000.0, "finished": finished}
        return JobState(name="sft-demo", method="sft", state=state, **(known | changes))

    return make
