"""Whether a job can begin with another job's checkpoint (``resume_from_checkpoint``): known before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .checkpoint import find_checkpoint, step_of
from .job_folder import JobFolder
from .job_request import read_request

if TYPE_CHECKING:
    from .loop_settings import LoopSettings
    from .train_parameters import TrainParameters

OF_AN_ADAPTER = ("lora_rank", "target_modules", "modules_to_save")
"""Keys that say which weights an adapter has."""


def check_beginning(train: TrainParameters, settings: LoopSettings) -> None:
    """Check that the checkpoint that a job is to begin with is there, is of the same weights, and before its end.

    Raises:
        ByzerError: there is none, or it does not fit; the error names the key that differs.
    """
    assert settings.resume_from is not None
    checkpoint = find_checkpoint(settings.resume_from)
    check_end(step_of(checkpoint), settings.max_steps, settings.resume_from)
    earlier = JobFolder(checkpoint.parent.parent)
    if not earlier.exists():  # somebody has copied it: loading tells
        return
    request = read_request(earlier)
    theirs, ours = _weights(request.train, request.loop), _weights(train, settings)
    for key in sorted(theirs.keys() & ours.keys(), key=list(ours).index):
        if theirs[key] != ours[key]:
            begin = "begin with its model as localModelDir"
            known = key in type(train.optimization).model_fields
            raise ByzerError(
                f"this checkpoint was trained with {key}={_written(theirs[key])}, and this job has "
                f"{_written(ours[key])}",
                where=f"resume_from_checkpoint: {checkpoint}",
                do=f'write {train.method}.{key}="{_written(theirs[key])}", or {begin}' if known else begin,
            )


def check_end(step: int, total: int | None, place: str) -> None:
    """Check that a checkpoint lies before the end of the job that begins with it.

    Args:
        step: The checkpoint's.
        total: The job's steps; None: not known yet.
        place: The value of ``resume_from_checkpoint``.

    Raises:
        ByzerError: there would be nothing to do.
    """
    if total is not None and step >= total:
        raise ByzerError(
            f"the checkpoint is at step {step}, and this job ends at step {total}",
            where=place,
            do="ask for more epochs or a higher max_steps: they count from the start of the first job",
        )


def _weights(train: TrainParameters, settings: LoopSettings) -> dict[str, Any]:
    """Return what decides which weights a job trains and what its optimizer remembers of them, by key."""
    keys = train.optimization
    adamw = settings.optim is None or settings.optim.startswith("adamw_torch")  # all of them remember the same
    optim = {"optim": "adamw_torch" if adamw else settings.optim}
    if keys.whole:
        return {"finetuning_type": "full", **optim}
    adapter = {name: getattr(keys, name) for name in OF_AN_ADAPTER}
    return {"finetuning_type": train.fine_tuning.finetuning_type, **adapter, **optim}


def _written(value: Any) -> str:
    """Return a value as a cell writes it."""
    return ",".join(value) if isinstance(value, list) else str(value)
