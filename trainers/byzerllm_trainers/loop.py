"""The one training loop, over a DeepSpeed engine, for every recipe.

The loss of a step is the mean over all its supervised tokens: over ranks, micro-batches and a partial last
step alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .checkpoint import load_checkpoint, restore_best, resume_elsewhere, save_checkpoint
from .engine import Rank, optimizer_step, start_engine
from .evaluation import evaluate
from .loss import summed_loss
from .model_options import apply_model_options
from .packing import Plan, Step

if TYPE_CHECKING:
    import torch

    from .job_folder import JobFolder, Record
    from .loop_settings import LoopSettings


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: ``finished``, or ``stopped`` when asked to before the last step.
        steps: Optimizer steps done.
        model_step: The step whose weights the engine holds: the last, or the best one of a finished run.
        first_loss: Loss of this attempt's first step; nan when it did none.
        last_loss: Loss of the last step; nan when this attempt did none.
        tokens: Real tokens that this attempt trained on, over all ranks.
        seconds: Wall time of this attempt's steps.
    """

    state: str
    steps: int
    model_step: int
    first_loss: float
    last_loss: float
    tokens: int
    seconds: float

    def as_record(self) -> Record:
        """Return it for an event."""
        return asdict(self)


def train(
    model: torch.nn.Module,
    plan: Plan,
    settings: LoopSettings,
    total_steps: int,
    *,
    folder: JobFolder,
    rank: Rank,
    record: Callable[[Record], None],
    flush: Callable[[], None],
    saved: Callable[[int], None],
    should_stop: Callable[[], bool],
    epoch_steps: int | None = None,
    held_out: Plan | None = None,
) -> tuple[Any, Outcome]:
    """Train ``model`` up to ``total_steps``, from the newest checkpoint if there is one.

    Args:
        model: A causal language model; parameters that require gradients are trained.
        plan: The data order.
        settings: The run's numbers.
        total_steps: Where the learning-rate schedule and the run end.
        folder: The job's folder.
        rank: This process.
        record: Takes one metrics record a step (called on rank 0).
        flush: Puts the records on disk, before the checkpoint from which another attempt goes on behind them.
        saved: Told the step of each committed checkpoint (called on rank 0).
        should_stop: Asked each step on every rank; one yes stops all after the same step.
        epoch_steps: Steps that count as one epoch; None: all of the plan's.
        held_out: What to evaluate on, if the settings evaluate; its one epoch is all of it.

    Returns:
        The engine, for export, and the outcome.

    Raises:
        ByzerError: the loss became NaN or infinite, or the device or the checkpoint does not suit the settings.
    """
    import torch

    apply_model_options(model, settings)
    model.train()
    engine = start_engine(model, settings, folder)
    torch.manual_seed(settings.seed + rank.index)  # dropout differs by rank
    step = _begin(engine, settings, folder, rank, total_steps)
    epoch_steps = epoch_steps or plan.steps_per_epoch
    loss, first_loss, tokens, started = math.nan, math.nan, 0, time.perf_counter()
    stop = False
    while step < total_steps and not stop:
        begun = time.perf_counter()
        current = plan.step(step, rank.index)
        local = _accumulate_gradients(engine, current, rank)
        learning_rate = settings.learning_rate_at(step, total_steps)
        norm = optimizer_step(engine, settings, learning_rate)
        loss, stop = _over_ranks(local, should_stop(), engine.device)
        loss /= current.targets
        step += 1
        tokens += current.tokens
        first_loss = loss if math.isnan(first_loss) else first_loss
        if not math.isfinite(loss):
            raise ByzerError(
                f"the loss became {loss} at step {step}",
                do="lower the learning rate, or look at the rows of that step",
            )
        seconds = time.perf_counter() - begun
        saves = stop or step == total_steps or settings.saving.due(step, epoch_steps)
        metrics: dict[str, float] = {}
        if held_out is not None and _evaluates(settings, step, total_steps, epoch_steps, saves=saves):
            metrics = evaluate(engine, held_out, rank)
        if rank.index == 0:
            record(
                {
                    "step": step,
                    "loss": round(loss, 6),
                    "learning_rate": learning_rate,
                    "grad_norm": round(norm, 6),
                    "tokens": current.tokens,
                    "tokens_per_second": round(current.tokens / seconds, 1),
                    "seconds": round(seconds, 5),
                    **metrics,
                }
            )
        if saves:
            if rank.index == 0:
                flush()
            save_checkpoint(
                engine,
                folder,
                step,
                rank.index,
                keep=settings.save_total_limit,
                metrics=metrics,
                best_by=settings.best_by,
            )
            if rank.index == 0:
                saved(step)
    finished = step >= total_steps
    best = restore_best(engine, folder, settings.best_by, rank.index) if finished and settings.best_by else step
    outcome = Outcome(
        state="finished" if finished else "stopped",
        steps=step,
        model_step=best,
        first_loss=first_loss,
        last_loss=loss,
        tokens=tokens,
        seconds=time.perf_counter() - started,
    )
    return engine, outcome


def _begin(engine: Any, settings: LoopSettings, folder: JobFolder, rank: Rank, total_steps: int) -> int:
    """Restore what there is to go on from and return its step: this job's checkpoint, else the one asked for."""
    step = load_checkpoint(engine, folder, rank.index)
    if step or settings.resume_from is None:
        return step
    step = resume_elsewhere(engine, settings.resume_from, rank.index)
    if step >= total_steps:
        raise ByzerError(
            f"the checkpoint is at step {step}, and this job ends at step {total_steps}",
            where=settings.resume_from,
            do="ask for more epochs or a higher max_steps: they count from the start of the first job",
        )
    return step


def _accumulate_gradients(engine: Any, step: Step, rank: Rank) -> float:
    """Compute the gradients of this rank's micro-batches; return its summed loss. The last one is not stepped."""
    total = 0.0
    for batch in step.batches:
        summed = summed_loss(engine, batch)
        # the engine averages gradients over ranks, hence `world`
        engine.backward(summed * (rank.world / step.targets), scale_wrt_gas=False)
        total += summed.item()
        if batch is not step.batches[-1]:
            engine.step()
    return total


def _evaluates(settings: LoopSettings, step: int, total_steps: int, epoch_steps: int, *, saves: bool) -> bool:
    """Whether the model is evaluated after this step; if the best checkpoint counts, each of them is."""
    if settings.best_by is not None and saves:
        return True
    if settings.evaluating.strategy == "no":
        return False
    return step == total_steps or settings.evaluating.due(step, epoch_steps)


def _over_ranks(loss: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """Sum the loss over ranks; with it, in the same small message, whether any rank was asked to stop."""
    import torch
    import torch.distributed as dist

    message = torch.tensor([loss, float(stop)], dtype=torch.float64, device=device)
    if dist.get_world_size() > 1:
        dist.all_reduce(message)
    total, stops = message.tolist()
    return total, stops > 0
