"""A recipe says what a method trains: which data, which model. The loop says how."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .job_folder import JobFolder, Record
from .job_request import JobRequest
from .loss import Objective
from .own_partitions import own_partitions
from .packing import Layout, Plan
from .samples import Sampler
from .shards import Shards, open_shards

if TYPE_CHECKING:
    import torch

    from .parts import Row


@dataclass(frozen=True)
class Job:
    """A job's folder and what it was asked to do.

    Attributes:
        local: Whether its folder is this node's alone, so that no other can tokenise its data.
    """

    folder: JobFolder
    request: JobRequest
    local: bool = False


class Recipe(Protocol):
    """One method: supervised fine-tuning, pretraining, …"""

    def format_of(self, columns: Iterable[str]) -> str:
        """Return the name of the format that rows of these columns have.

        Raises:
            ByzerError: they have none that this method can train on.
        """
        ...

    def check(self, rows: Iterable[Row], kind: str, *, drop: bool) -> None:
        """Refuse rows that this method cannot train on, before a job is made of them.

        Args:
            rows: A table's.
            kind: Their format.
            drop: Whether rows that do not fit are left out; then one has to fit.

        Raises:
            ByzerError: a row does not fit, or none does.
        """
        ...

    def prepare(self, job: Job) -> Record:
        """Tokenise the data into ``data/shards``; return counts for the ``prepared`` event.

        Raises:
            ByzerError: a row that does not fit, or nothing to learn from.
        """
        ...

    def plan(self, job: Job) -> Plan:
        """Return the data order over the prepared shards."""
        ...

    def held_out(self, job: Job) -> Plan | None:
        """Return the prepared data to evaluate on; None: there is none."""
        ...

    def epochs(self, job: Job) -> float:
        """How often the data is seen."""
        ...

    def steps_per_epoch(self, job: Job, plan: Plan) -> int:
        """Steps that count as one epoch."""
        ...

    def model(self, job: Job) -> torch.nn.Module:
        """Build the model, its trainable parameters marked."""
        ...

    def objective(self, job: Job) -> Objective:
        """Return what the loss is."""
        ...

    def prompt(self, tokenizer: Any, text: str) -> list[int]:
        """Return what a model of this recipe is fed to answer (go on with) a text."""
        ...

    def about_model(self, job: Job) -> Record:
        """Return what the ``running`` event says of the model: ``precision``, and a ``message`` if there is any."""
        ...

    def tokenizer(self, job: Job) -> Any:
        """Return the tokenizer that is saved with the result."""
        ...


def find(method: str) -> Recipe:
    """Return the recipe of a method of `train_parameters.methods`."""
    from . import dpo, pretrain, sft

    recipes: dict[str, Recipe] = {
        "sft": sft.SupervisedFineTuning(),
        "sfft": pretrain.Pretraining(),
        "dpo": dpo.PreferenceTuning(),
    }
    return recipes[method]


def total_steps(recipe: Recipe, job: Job, plan: Plan) -> int:
    """Optimizer steps of the whole run; an explicit ``max_steps`` wins."""
    planned = math.ceil(recipe.epochs(job) * recipe.steps_per_epoch(job, plan))
    return job.request.loop.max_steps or planned


def dealt(job: Job, make: Callable[[Shards, Layout], Plan]) -> Plan:
    """Plan the job's prepared data: an equal share for each rank, or with ``keepPartitionNum`` partitions of its own.

    Args:
        job: Whose shards are dealt.
        make: Plans examples for the ranks of a layout.

    Raises:
        NothingToLearn: there is no token to learn.
    """
    loop, shards = job.request.loop, open_shards(job.folder.shards)
    layout = Layout(rows=loop.rows, accumulation=loop.accumulation, world=job.request.workers, seed=loop.data_seed)
    return make(shards, layout) if shards.partitions is None else own_partitions(shards, layout, make)


def sampler(recipe: Recipe, job: Job) -> Sampler | None:
    """Return who asks the model the user's ``sample_prompts``; None: there are none."""
    keys = job.request.train.optimization
    if not keys.sample_prompts:
        return None
    tokenizer = recipe.tokenizer(job)
    ids = [recipe.prompt(tokenizer, text) for text in keys.sample_prompts]
    return Sampler(ids, keys.sample_prompts, tokenizer, keys.sample_steps, keys.sample_max_tokens)


def eval_layout(job: Job) -> Layout:
    """Return how the rows to evaluate on are dealt."""
    return Layout(rows=job.request.loop.eval_rows, accumulation=1, world=job.request.workers, seed=0)
