"""Going on with a job from its folder, on whatever cluster there is now."""

from __future__ import annotations

from dataclasses import dataclass

from byzerllm_adapters.errors import ByzerError

from . import follow, recipe
from .checkpoint import committed
from .coordinator import start_coordinator
from .gang import wait_until_free
from .job_folder import JobFolder, Record, write_json
from .job_request import JobRequest, read_request
from .mirror import mirror_of
from .placement import placement


@dataclass(frozen=True)
class Changes:
    """What is to be another from now on; None: as it was.

    Attributes:
        epochs: Epochs in all, those that are done included.
        max_steps: Steps in all, in place of epochs.
        workers: Ranks. Each step keeps its rows, dealt to more or fewer ranks.
    """

    epochs: float | None = None
    max_steps: int | None = None
    workers: int | None = None

    @property
    def moves_the_end(self) -> bool:
        """Whether the job gets another end."""
        return self.epochs is not None or self.max_steps is not None


AS_IT_WAS = Changes()

BATCH_SIZES = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
"""What deepspeedConfig may say of the rows of a step; other workers deal them anew."""


def resume(folder: JobFolder, changes: Changes = AS_IT_WAS) -> None:
    """Start the coordinator of a job that was stopped, failed, or whose coordinator is gone.

    It takes a new lease: if the old coordinator comes back after all, that one ends. When this returns, the job's
    events say that it goes on; it does from its last whole checkpoint.

    Args:
        folder: The job's.
        changes: What is to be another. With another end, the learning rate follows the schedule for that.

    Raises:
        ByzerError: it runs, Python code drives its workers, or it has nothing left to do.
    """
    import ray
    from ray.exceptions import RayActorError

    if (mirror := mirror_of(folder)) and mirror.exists():
        mirror.fetch()  # it may have gone on elsewhere
    request = read_request(folder)
    if request.driven:
        raise ByzerError(f"job {folder.name} is driven by Python code", do="run that code again")
    ending = folder.ending()
    if changes != AS_IT_WAS:
        _change(folder, changes, ending)
    elif ending and ending["event"] == "finished":
        raise ByzerError(
            f"job {folder.name} has finished: {ending['steps']} steps",
            where=f"folder {folder.root}",
            do=f'"%byzerllm resume {folder.name} --epochs N" trains on: N counts the epochs that are done',
        )
    before = folder.attempt()
    if ending:
        _let_leave(folder.name)
    try:
        coordinator = start_coordinator(str(folder.root))
    except ValueError:  # Ray: an actor of this name is there
        raise ByzerError(
            f"job {folder.name} is running on this cluster", do=f'see it with "%byzerllm attach {folder.name}"'
        ) from None
    try:
        ray.get(coordinator.begin.remote())
    except RayActorError as error:  # it may have ended since, and the job's events say how
        print(error)
    if folder.attempt() == before:
        raise ByzerError(
            f"job {folder.name} did not go on: its new coordinator failed",
            where=f"folder {folder.root}",
            do=f'"%byzerllm logs {folder.name}" shows why; every node has to see the folder',
        )


def _let_leave(name: str) -> None:
    """Wait for the coordinator of a job that has ended.

    Raises:
        ByzerError: it stays: what is to be done at the job's end takes long.
    """
    try:
        wait_until_free(name)
    except ByzerError:
        do = 'try again in a minute; "on_finish" may take that long'
        raise ByzerError(f"job {name} has ended, and what follows its end still runs", do=do) from None


def _change(folder: JobFolder, changes: Changes, ending: Record | None) -> None:
    """Write changes into the job's request.

    Raises:
        ByzerError: the job has not ended, it has done as much already, or workers and rows do not fit.
    """
    if ending is None and follow.is_alive(folder):
        raise ByzerError(
            f"job {folder.name} has not ended: it cannot be changed",
            do=f'stop it first: "%byzerllm stop {folder.name}"',
        )
    record = folder.request()
    request = JobRequest(**record)
    keys = record["parameters"].setdefault(request.train.method, {})
    if changes.moves_the_end:
        keys.pop("max_steps", None)
    if changes.epochs is not None:
        keys[request.train.optimization.epochs_key] = changes.epochs
    if changes.max_steps is not None:
        keys["max_steps"] = changes.max_steps
    if changes.workers is not None:
        keys |= _dealt_anew(request, changes.workers)
        for written in BATCH_SIZES:
            (record["parameters"].get("deepspeedConfig") or {}).pop(written, None)
        cpus = request.cpus_per_worker if request.gpu else None
        one_node = request.train.optimization.one_node
        record |= placement(changes.workers, cpus, request.resources, one_node=one_node)
    assert JobRequest(**record).loop, "reading it refuses what a cell could not say either"
    _check_end(JobRequest(**record), folder, ending)
    write_json(folder.root / "job.json", record)


def _dealt_anew(request: JobRequest, workers: int) -> dict[str, int]:
    """Return rows and accumulation with which so many workers have the rows of a step that there were.

    Raises:
        ByzerError: there are none.
    """
    if request.train.keep_partition_num:
        raise ByzerError(
            "with keepPartitionNum each worker has its own partitions: their number cannot change",
            do=f"resume it with {request.workers} workers",
        )
    loop = request.loop
    if loop.zero_stage and loop.optim is not None and not loop.optim.startswith("adamw_torch"):
        raise ByzerError(
            f"the state of {loop.optim} under ZeRO stage {loop.zero_stage} cannot be dealt to other workers",
            do=f"resume it with {request.workers} workers",
        )
    if workers < 1:
        raise ByzerError(f"{workers} workers cannot train", do="resume it with 1 or more")
    of_a_step = loop.rows * loop.accumulation * request.workers
    for rows in range(loop.rows, 0, -1):
        if of_a_step % (rows * workers) == 0:
            accumulation = of_a_step // (rows * workers)
            return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation}
    fitting = ", ".join(str(count) for count in range(1, of_a_step + 1) if of_a_step % count == 0)
    raise ByzerError(
        f"{of_a_step} rows a step cannot be dealt to {workers} workers",
        do=f"resume with a number of workers that divides them: {fitting}",
    )


def _check_end(request: JobRequest, folder: JobFolder, ending: Record | None) -> None:
    """Refuse to go on with a job that has done all that is asked of it.

    Raises:
        ByzerError: it has.
    """
    if ending and ending["event"] == "finished" and not committed(folder):
        raise ByzerError(
            f"job {folder.name} has finished, and its checkpoints were removed",
            where=f"folder {folder.root}",
            do=f'train on from its model in a new job: localModelDir="{folder.model}"',
        )
    if ending is None or ending["event"] == "failed" or not (folder.shards / "manifest.json").exists():
        return
    method, job = recipe.find(request.train.method), recipe.Job(folder, request)
    total = recipe.total_steps(method, job, method.plan(job))
    if total <= ending["steps"]:
        raise ByzerError(
            f"job {folder.name} has done {ending['steps']} steps, and its end is at {total}",
            do="ask for more epochs or steps: they count from the start of the job",
        )
