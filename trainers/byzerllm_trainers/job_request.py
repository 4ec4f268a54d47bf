"""What a job is asked to do: everything that is needed to run it, and to run it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .job_folder import JobFolder, Record
from .versions import installed_versions

if TYPE_CHECKING:
    from .loop_settings import LoopSettings
    from .train_parameters import TrainParameters


@dataclass(frozen=True)
class JobRequest:
    """One training job.

    Attributes:
        parameters: The keys that were given, by their declared names (a method's, such as ``sft``, are a group).
        owner: Who asked.
        workers: Ranks, one device each.
        gpu: Whether a worker holds a GPU; else it computes on the CPU.
        cpus_per_worker: CPUs that Ray reserves for a worker.
        threads_per_worker: Threads that a worker computes with, so that ranks do not fight for cores.
        resources: Custom Ray resources of each worker.
        driven: The caller starts the workers' ``train`` itself (`DeepSpeedTrain`); nothing is restarted.
        versions: Of Python and the key libraries where the job was made.
    """

    parameters: dict[str, Any]
    owner: str
    workers: int
    gpu: bool
    cpus_per_worker: float
    threads_per_worker: int
    resources: dict[str, float] = field(default_factory=dict)
    driven: bool = False
    versions: dict[str, str] = field(default_factory=installed_versions)

    @property
    def train(self) -> TrainParameters:
        """The cell's keys, read and validated."""
        from byzerllm_adapters.parameters import read

        from .train_parameters import TrainParameters

        return read(TrainParameters, self.parameters)

    @property
    def loop(self) -> LoopSettings:
        """The loop's numbers."""
        from .loop_settings import loop_settings

        return loop_settings(self.train, checked=True)

    def as_record(self) -> Record:
        """Return what ``job.json`` holds."""
        return asdict(self)


def read_request(folder: JobFolder) -> JobRequest:
    """Read a job's request back.

    Raises:
        ByzerError: the folder holds no job.
    """
    return JobRequest(**folder.request())
