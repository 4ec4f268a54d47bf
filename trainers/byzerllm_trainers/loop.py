"""The one training loop, over a DeepSpeed engine, for every recipe.

The loss of a step is the mean over all its supervised tokens: over ranks, micro-batches and a partial last
step alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from byzerllm_adapters.errors import ByzerError

from .early_stopping import EarlyStopping
from .elsewhere import check_end
from .engine import Rank, optimizer_step, precision, start_engine
from .evaluation import evaluate
from .flops import model_flops
from .loss import NextToken, Objective
from .model_options import apply_model_options
from .packing import Plan, Step
from .restoring import load_checkpoint, restore_best, resume_elsewhere
from .run_notes import Standstill, notes_before
from .saving import Saver
from .step_clock import StepClock
from .step_record import StepRecord, keep_batches

if TYPE_CHECKING:
    import torch

    from .job_folder import JobFolder, Record
    from .loop_settings import LoopSettings
    from .samples import Sampler


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: ``finished``, or ``stopped`` when asked to before the last step.
        message: Why it ended before the last step of its own accord; empty otherwise.
        steps: Optimizer steps done.
        model_step: The step whose weights the engine holds: the last, or the best one of a finished run.
        first_loss: Loss of this attempt's first step; None when it did none.
        last_loss: Loss of the last step; None when this attempt did none.
        tokens: Real tokens that this attempt trained on, over all ranks.
        seconds: Wall time of this attempt's steps.
    """

    state: str
    message: str
    steps: int
    model_step: int
    first_loss: float | None
    last_loss: float | None
    tokens: int
    seconds: float

    def as_record(self) -> Record:
        """Return it for an event."""
        return asdict(self)


class Observer(Protocol):
    """Whom the loop tells how it goes. All but `get_on` and `should_stop` is called on rank 0 alone."""

    def get_on(self) -> None:
        """Something was done, be it small: who calls this now and then does not stand still."""

    def record(self, step: Record) -> None:
        """A step's metrics."""

    def flush(self) -> None:
        """Put the records on disk: a checkpoint follows, and another attempt may go on behind it."""

    def fence(self) -> None:
        """Raise if another attempt goes on with this job: nothing may be written any more."""

    def saved(self, step: int) -> None:
        """A checkpoint was committed."""

    def note(self, message: str) -> None:
        """The user should know this."""

    def sampled(self, answers: Sequence[Record]) -> None:
        """What the model answered the user's prompts."""

    def should_stop(self) -> bool:
        """Asked each step on every rank; one yes stops all after the same step."""


def train(
    model: torch.nn.Module,
    plan: Plan,
    settings: LoopSettings,
    total_steps: int,
    *,
    folder: JobFolder,
    rank: Rank,
    observer: Observer,
    objective: Objective | None = None,
    epoch_steps: int | None = None,
    held_out: Plan | None = None,
    sampler: Sampler | None = None,
) -> tuple[Any, Outcome]:
    """Train ``model`` up to ``total_steps``, from the newest checkpoint if there is one.

    Args:
        model: A causal language model; parameters that require gradients are trained.
        plan: The data order.
        settings: The run's numbers.
        total_steps: Where the learning-rate schedule and the run end.
        folder: The job's folder.
        rank: This process.
        observer: Is told how it goes.
        objective: What the loss is; None: of the next token.
        epoch_steps: Steps that count as one epoch; None: all of the plan's.
        held_out: What to evaluate on, if the settings evaluate; its one epoch is all of it.
        sampler: Asks the model prompts of the user's; None: nobody does.

    Returns:
        The engine, for export, and the outcome.

    Raises:
        ByzerError: the loss became NaN or infinite, or the device or the checkpoint does not suit the settings.
    """
    import torch

    apply_model_options(model, settings)
    model.train()
    flops = model_flops(model)
    objective = objective or NextToken()
    engine = start_engine(model, settings, folder)
    torch.manual_seed(settings.seed + rank.index)  # dropout differs by rank
    step = load_checkpoint(engine, folder, rank.index, observer.note, observer.fence)
    step = step or _begin_elsewhere(engine, settings.resume_from, folder, rank, total_steps)
    earlier = [record for record in folder.metrics() if record["step"] <= step]
    run = _Run(
        engine=engine,
        plan=plan,
        settings=settings,
        total_steps=total_steps,
        epoch_steps=epoch_steps or plan.steps_per_epoch,
        folder=folder,
        rank=rank,
        observer=observer,
        objective=objective,
        held_out=held_out,
        sampler=sampler,
        saver=Saver(
            engine,
            folder,
            rank.index,
            keep=settings.save_total_limit,
            best_by=settings.best_by,
            fence=observer.fence,
            saved=observer.saved,
            get_on=observer.get_on,
        ),
        stopping=EarlyStopping(settings.metric, settings.patience, earlier),
        standstill=Standstill(),
        describe=StepRecord(
            flops,
            half=precision(settings) != "fp32",
            extra_forwards=objective.extra_forwards,
            rank=rank,
            earlier=earlier,
        ),
        clock=StepClock(engine.device),
    )
    if rank.index == 0:
        for note in notes_before(settings, total=total_steps, epoch=run.epoch_steps, of_data=plan.steps_per_epoch):
            observer.note(note)
    losses, tokens, started = list[float](), 0, time.perf_counter()
    asked = enough = False
    while step < total_steps and not (asked or enough):
        done, record, asked = run.advance(step)
        step, tokens = step + 1, tokens + done.tokens
        losses = [*losses[:1], record["loss"]]
        enough = run.conclude(record, asked=asked)
    finished = enough or step >= total_steps
    best = step
    if finished and settings.best_by:
        best = restore_best(engine, folder, settings.best_by, rank.index, step=step, tell=observer.note)
    outcome = Outcome(
        state="finished" if finished else "stopped",
        message=run.stopping.message if enough else "",
        steps=step,
        model_step=best,
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        tokens=tokens,
        seconds=time.perf_counter() - started,
    )
    return engine, outcome


@dataclass
class _Run:
    """A run on one rank: what `train` was given, and what follows from it."""

    engine: Any
    plan: Plan
    settings: LoopSettings
    total_steps: int
    epoch_steps: int
    folder: JobFolder
    rank: Rank
    observer: Observer
    objective: Objective
    held_out: Plan | None
    sampler: Sampler | None
    saver: Saver
    stopping: EarlyStopping
    standstill: Standstill
    describe: StepRecord
    clock: StepClock

    def advance(self, step: int) -> tuple[Step, Record, bool]:
        """Do the step with this index; return it, its record, and whether any rank was asked to stop.

        Raises:
            ByzerError: the loss is not finite; the step's batches are kept.
        """
        begun = time.perf_counter()
        self.clock.start()
        current = self.plan.step(step, self.rank.index)
        self.clock.mark("data")
        local = self._accumulate_gradients(current)
        learning_rate = self.settings.learning_rate_at(step, self.total_steps)
        norm = optimizer_step(self.engine, self.settings, learning_rate)
        self.clock.mark("optimizer")
        flags = (self.observer.should_stop(), self.saver.is_writing())
        sums, (asked, writing) = _over_ranks(local, flags, self.engine.device)
        if self.saver.is_open and not writing:
            self.saver.commit()
        loss, *measured = (total / current.targets for total in sums)
        if not math.isfinite(loss):
            raise ByzerError(
                f"the loss became {loss} at step {step + 1}",
                where=f"its batches: {keep_batches(self.folder, step + 1, self.rank, current.batches)}",
                do="lower the learning rate, or look at the rows of that step",
            )
        numbers = {
            "step": step + 1,
            "loss": round(loss, 6),
            "learning_rate": learning_rate,
            "grad_norm": round(norm, 6),
            **{name: round(mean, 6) for name, mean in zip(self.objective.metrics, measured, strict=True)},
        }
        seconds = {"seconds": round(time.perf_counter() - begun, 5), **self.clock.read()}
        return current, self.describe(numbers, current, seconds), asked

    def conclude(self, record: Record, *, asked: bool) -> bool:
        """Evaluate, sample and save, whatever is due after a step; return whether the run has done enough."""
        step: int = record["step"]
        last = asked or step == self.total_steps
        saves = last or self.settings.saving.due(step, self.epoch_steps)
        metrics: dict[str, float] = {}
        if self.held_out is not None and self._evaluates(step, saves=saves):
            metrics = evaluate(self.engine, self.held_out, self.rank, self.objective, self.observer.get_on)
        enough = self.stopping.is_due(metrics)
        tells = self.rank.index == 0
        if tells:
            self.observer.record(record | metrics)
            if note := self.standstill.add(record):
                self.observer.note(note)
        if self.sampler is not None and self.sampler.is_due(step, last=last or enough):
            answers = self.sampler.answers(self.engine, step, self.observer.get_on)
            if tells:
                self.observer.sampled(answers)
        if saves or enough:
            if tells:
                self.observer.flush()
            self.saver.begin(step, metrics)
        if last or enough:
            self.saver.finish()
        return enough

    def _accumulate_gradients(self, step: Step) -> torch.Tensor | float:
        """Compute the gradients of this rank's micro-batches; return its sums. The last one is not stepped."""
        total: torch.Tensor | float = 0.0
        for batch in step.batches:
            summed = self.objective.summed_loss(self.engine, batch)
            self.clock.mark("forward")
            # the engine averages gradients over ranks, hence `world`
            self.engine.backward(summed.reshape(-1)[0] * (self.rank.world / step.targets), scale_wrt_gas=False)
            total = total + summed.detach().double()
            self.observer.get_on()
            if batch is not step.batches[-1]:
                self.engine.step()
            self.clock.mark("backward")
        return total

    def _evaluates(self, step: int, *, saves: bool) -> bool:
        """Whether the model is evaluated after this step; if the best checkpoint counts, each of them is."""
        if self.settings.best_by is not None and saves:
            return True
        if self.settings.evaluating.strategy == "no":
            return False
        return step == self.total_steps or self.settings.evaluating.due(step, self.epoch_steps)


def _begin_elsewhere(engine: Any, place: str | None, folder: JobFolder, rank: Rank, total_steps: int) -> int:
    """Restore the checkpoint of another job that is asked for, if one is, and return its step.

    Raises:
        ByzerError: there is none that fits, or it is of this job's last step or a later one.
    """
    if place is None:
        return 0
    step = resume_elsewhere(engine, place, folder, rank.index)
    check_end(step, total_steps, place)
    return step


def _over_ranks(
    sums: torch.Tensor | float, flags: Sequence[bool], device: torch.device
) -> tuple[list[float], list[bool]]:
    """Add up loss and metrics over ranks; with them, in the same small message, whether any rank raises each flag."""
    import torch
    import torch.distributed as dist

    parts = [
        torch.as_tensor(part, dtype=torch.float64, device=device).reshape(-1) for part in (sums, *map(float, flags))
    ]
    message = torch.cat(parts)
    if dist.get_world_size() > 1:
        dist.all_reduce(message)
    totals = message.tolist()
    return totals[: -len(flags)], [raised > 0 for raised in totals[-len(flags) :]]
