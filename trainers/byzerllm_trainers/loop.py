"""The one training loop, over a DeepSpeed engine, for every recipe.

The loss of a step is the mean over all its supervised tokens: over ranks, micro-batches and a partial last
step alike. Only supervised positions reach the language-model head.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .checkpoint import load_checkpoint, save_checkpoint
from .engine import Rank, optimizer_step, start_engine
from .packing import IGNORED, Batch, Plan

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
        first_loss: Loss of this attempt's first step; nan when it did none.
        last_loss: Loss of the last step; nan when this attempt did none.
        tokens: Real tokens that this attempt trained on, over all ranks.
        seconds: Wall time of this attempt's steps.
    """

    state: str
    steps: int
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

    Returns:
        The engine, for export, and the outcome.

    Raises:
        ByzerError: the loss became NaN or infinite.
    """
    import torch

    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    engine = start_engine(model, settings, folder)
    torch.manual_seed(settings.seed + rank.index)  # dropout differs by rank
    step = load_checkpoint(engine, folder, rank.index)
    loss, first_loss, tokens, started = math.nan, math.nan, 0, time.perf_counter()
    stop = False
    while step < total_steps and not stop:
        begun = time.perf_counter()
        current = plan.step(step, rank.index)
        local = 0.0
        for batch in current.batches:
            summed = summed_loss(engine, batch)
            # the engine averages gradients over ranks, hence `world`
            engine.backward(summed * (rank.world / current.targets), scale_wrt_gas=False)
            local += summed.item()
            if batch is not current.batches[-1]:
                engine.step()
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
        if rank.index == 0:
            seconds = time.perf_counter() - begun
            record(
                {
                    "step": step,
                    "loss": round(loss, 6),
                    "learning_rate": learning_rate,
                    "grad_norm": round(norm, 6),
                    "tokens": current.tokens,
                    "tokens_per_second": round(current.tokens / seconds, 1),
                    "seconds": round(seconds, 5),
                }
            )
        if stop or step == total_steps or (settings.save_steps and step % settings.save_steps == 0):
            if rank.index == 0:
                flush()
            save_checkpoint(engine, folder, step, rank.index, keep=settings.save_total_limit)
            if rank.index == 0:
                saved(step)
    outcome = Outcome(
        state="finished" if step >= total_steps else "stopped",
        steps=step,
        first_loss=first_loss,
        last_loss=loss,
        tokens=tokens,
        seconds=time.perf_counter() - started,
    )
    return engine, outcome


def summed_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Sum of the cross entropy over a batch's supervised positions, in fp32.

    Args:
        model: A causal language model, or a DeepSpeed engine around one.
        batch: Ids and shifted labels, ``[rows, width]``.

    The head computes logits ``[supervised, vocabulary]`` only: a hook picks the supervised positions' hidden
    states right before it, so that this works for every family whose head is a module.
    """
    import torch
    from torch.nn.functional import cross_entropy

    module = getattr(model, "module", model)
    device = next(module.parameters()).device
    labels = torch.from_numpy(batch.labels).to(device)
    chosen = labels != IGNORED

    def pick(_head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][chosen], *inputs[1:])

    hook = _head(module).register_forward_pre_hook(pick)
    try:
        logits = model(input_ids=torch.from_numpy(batch.input_ids).to(device), use_cache=False).logits
    finally:
        hook.remove()
    return cross_entropy(logits.float(), labels[chosen], reduction="sum")


def _head(module: Any) -> torch.nn.Module:
    """Return the module that turns hidden states into logits."""
    base = module.get_base_model() if hasattr(module, "peft_config") else module
    head: torch.nn.Module | None = base.get_output_embeddings()
    if head is None:
        raise ByzerError(f"{type(base).__name__} has no language-model head to train")
    return head


def _over_ranks(loss: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """Sum the loss over ranks; with it, in the same small message, whether any rank was asked to stop."""
    import torch
    import torch.distributed as dist

    message = torch.tensor([loss, float(stop)], dtype=torch.float64, device=device)
    if dist.get_world_size() > 1:
        dist.all_reduce(message)
    total, stops = message.tolist()
    return total, stops > 0
