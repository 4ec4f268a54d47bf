"""Live views of jobs: one thread a kernel keeps them all in step with their job folders."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from byzerllm_trainers import follow

from .cluster.job_watch import JobWatch
from .cluster.jobs import Job

if TYPE_CHECKING:
    from .widgets.job_state import JobState

UPDATE_SECONDS = 0.3
"""A little over three updates a second: smooth to the eye, small in messages."""


class JobView:
    """The card and the chart of one job, in the cell that made them.

    Args:
        job: The job.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._watch = JobWatch(job.folder, follow.is_alive)
        self._lock = threading.Lock()
        self._parts: tuple[Any, Any, Any] | None = None

    def show(self) -> JobState:
        """Display the job and return its state; one that has ended is shown as its static twin at once."""
        from .widgets.live_output import LiveOutput
        from .widgets.twins import job_bundle

        state = self._watch.look()
        output, twin = LiveOutput(), job_bundle(state)
        card, chart, box = _widgets(state, self._job)
        output.show(box, twin, hider=chart)
        self._parts = card, chart, output
        if state.active:
            WATCHER.add(self)
        else:
            output.settle(twin)
        return state

    def refresh(self) -> bool:
        """Bring the view up to date; return whether the job goes on."""
        from .widgets.twins import job_bundle

        assert self._parts is not None, "show() comes first"
        card, chart, output = self._parts
        with self._lock:
            state = self._watch.look()
            card.update(state)
            chart.update(state)
            if state.active:
                output.snapshot(lambda: job_bundle(state))
            else:
                output.settle(job_bundle(state))
            return state.active

    def give_up(self, error: Exception) -> None:
        """Replace the view by what is wrong with it."""
        assert self._parts is not None, "show() comes first"
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        text = f"{self._job.name}: this view has ended ({first}); %byzerllm attach {self._job.name} shows the job anew"
        self._parts[2].settle(({"text/plain": text}, {}))


class Watcher:
    """A daemon thread that refreshes the views of running jobs and ends when there is none."""

    def __init__(self) -> None:
        self._views: list[JobView] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, view: JobView) -> None:
        """Refresh ``view`` until its job has ended."""
        with self._lock:
            self._views.append(view)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="byzer-views", daemon=True)
                self._thread.start()

    def settle(self) -> None:
        """Refresh every view now, on the caller's thread: a headless run ends right after its last cell."""
        with self._lock:
            views = list(self._views)
        self._refresh(views)

    def _run(self) -> None:
        while True:
            with self._lock:
                views = list(self._views)
                if not views:
                    self._thread = None
                    return
            self._refresh(views)
            time.sleep(UPDATE_SECONDS)

    def _refresh(self, views: list[JobView]) -> None:
        ended = [view for view in views if not self._goes_on(view)]
        with self._lock:
            self._views = [view for view in self._views if view not in ended]

    def _goes_on(self, view: JobView) -> bool:
        """Refresh one view; one that cannot be (its job's folder was deleted) says so and ends, the others go on."""
        try:
            return view.refresh()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not freeze the other views
            view.give_up(error)
            return False


WATCHER = Watcher()


def _widgets(state: JobState, job: Job) -> tuple[Any, Any, Any]:
    """Return the card, the chart, and the box that shows both."""
    from ipywidgets import VBox

    from .widgets.job_card import JobCard
    from .widgets.loss_chart import LossChart

    card, chart = JobCard(), LossChart()
    if state.active:
        card.on_stop(job.stop)
    card.update(state)
    chart.update(state)
    return card, chart, VBox([card, chart])
