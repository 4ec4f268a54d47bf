"""Who gets a run's numbers besides its folder: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from byzerllm_adapters.errors import ByzerError

from .job_folder import JobFolder

PROJECT = "byzerllm"
"""The project (experiment) that runs are in, unless the tracker's own environment variable says another."""


class Tracker(Protocol):
    """Takes numbers."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Take a step's numbers."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files below the job's folder; what an earlier attempt wrote from the first step on is hidden."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._writer: Any = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder.tensorboard), purge_step=step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of the job's name that another attempt goes on with; configured by W&B's own environment variables."""

    def __init__(self, folder: JobFolder) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=folder.name,
            resume="allow",
            dir=str(folder.root),
            config=folder.request()["parameters"],
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log a row."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A run of the job's name; in the job's folder unless ``MLFLOW_TRACKING_URI`` names a server."""

    def __init__(self, folder: JobFolder) -> None:
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{folder.root / 'mlflow.db'}")
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        self._mlflow = mlflow
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params({name: str(value)[:500] for name, value in folder.request()["parameters"].items()})

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log metrics."""
        self._mlflow.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


TRACKERS: dict[str, Callable[[JobFolder], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""By what ``report_to`` calls them; each is also the name of the package that it needs."""


def tracker(name: str, folder: JobFolder) -> Tracker | None:
    """Return who takes the numbers of a job; None for ``none``."""
    return None if name == "none" else TRACKERS[name](folder)


def check_tracker(name: str) -> None:
    """Check that a tracker can be used here.

    Raises:
        ByzerError: its package is not installed.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ByzerError(
            f'report_to="{name}", and the package {name} is not installed',
            do=f"pip install {name} where the workers run, or report_to another: tensorboard, none",
        )
