"""A checkpoint of a job to a folder that transformers, or peft for an adapter, loads with nothing missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError

from .. import recipe
from ..job_folder import JobFolder, Record, read_json
from ..job_request import read_request
from .new_folder import check_free, new_folder
from .trained_weights import TrainedWeights, read_trained_weights


def convert(checkpoint: Path, target: Path, *, base: Path | None = None, dtype: str = "auto") -> Iterator[str | Record]:
    """Write the model of a checkpoint, its tokenizer and chat template to ``target``.

    Yields what it is doing, and last a record: ``model``, ``checkpoint``, ``step``, ``stage`` (ZeRO's), ``dtype`` and
    ``parameters`` (how many were written).

    Args:
        checkpoint: ``checkpoints/step-N`` in the folder of its job, whole.
        target: Where nothing is yet; it appears when what was written has been loaded.
        base: The model that the job began with; None: where it was then.
        dtype: Of the trained weights: ``auto`` is what the job computed in, ``float32`` its master weights.

    Raises:
        ByzerError: the checkpoint's job is not around it, or weights are missing or of another shape.
    """
    import torch

    check_free(target)
    job = _job_around(checkpoint, base)
    method = recipe.find(job.request.train.method)
    yield "building the model"
    torch.manual_seed(job.request.loop.seed)  # weights that the job made and froze are made the same again
    model = method.model(job)
    yield f"reading {checkpoint.name}"
    weights = read_trained_weights(checkpoint, model)
    chosen = weights.dtype if dtype == "auto" else dtype
    count = _fill(model, weights, chosen, checkpoint)
    yield "writing"
    with new_folder(target) as folder:
        model.save_pretrained(folder)
        method.tokenizer(job).save_pretrained(folder)
        del model
        yield "verifying"
        registry.find(job.request.train.family).load_model(str(folder))  # stops on whatever is missing
    yield {
        "model": str(target),
        "checkpoint": str(checkpoint),
        "step": int(read_json(checkpoint / "manifest.json")["step"]),
        "stage": weights.stage,
        "dtype": chosen,
        "parameters": count,
    }


def _job_around(checkpoint: Path, base: Path | None) -> recipe.Job:
    """Return the job whose folder holds the checkpoint, beginning with ``base`` if that is given."""
    folder = JobFolder(checkpoint.parent.parent)
    if not folder.exists():
        raise ByzerError(
            f"{checkpoint} is not in its job's folder, which says what the model is",
            do="put it back as JOB/checkpoints/step-N, with JOB/job.json",
        )
    request = read_request(folder)
    if base is not None:
        request = dataclasses.replace(request, parameters={**request.parameters, "localModelDir": str(base)})
    return recipe.Job(folder, request)


def _fill(model: Any, weights: TrainedWeights, dtype: str, checkpoint: Path) -> int:
    """Put the trained weights into a model, in place; return how many numbers they are."""
    import torch

    state = weights.state
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wrong = [name for name, p in trained.items() if name not in state or state[name].shape != p.shape]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ByzerError(
            f"{len(wrong)} weights are not in the checkpoint, or of another shape: {', '.join(wrong[:5])}{more}",
            where=str(checkpoint),
            do="modelNameOrPath has to be the model that the job began with",
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.data = state[name].to(device=parameter.device, dtype=getattr(torch, dtype))
        for name, buffer in model.named_buffers():
            if name in state:
                buffer.copy_(state[name])
    return sum(p.numel() for p in trained.values())
