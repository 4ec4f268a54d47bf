"""(Continued) pretraining of all weights on running text: documents joined with the end token, packed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError

from .job_folder import Record
from .loss import NextToken, Objective
from .own_partitions import partition_counts
from .packing import PackedStream, Plan
from .recipe import Job, dealt, eval_layout
from .tokenise import held_out_shards, tokenise

if TYPE_CHECKING:
    import pyarrow as pa

    from .optimization_parameters import SfftParameters

GET_MODEL_FILE = "get_model.pkl"
"""A user's ``get_model`` function, pickled by value into the job folder."""


class Pretraining:
    """The recipe of ``pretrainedModelType="sfft/NAME"``."""

    def check(self, table: pa.Table) -> None:
        """The documents are in the column "text"."""
        if "text" not in table.column_names:
            raise ByzerError(
                f'pretraining needs a column "text"; this table has: {", ".join(table.column_names)}',
                do="rename the column, e.g. table.rename(columns={'value': 'text'})",
            )

    def prepare(self, job: Job) -> Record:
        """Tokenise the documents, each followed by the end token."""
        tokenizer = self.tokenizer(job)
        shards, held_out = tokenise(job, lambda rows: _encode(rows, tokenizer))
        plan = self.plan(job)  # refuses an empty text
        self.held_out(job)
        counts = {"documents": len(shards), "tokens": len(shards.tokens)}
        return counts | ({"held_out": len(held_out)} if held_out else {}) | partition_counts(shards, plan)

    def plan(self, job: Job) -> Plan:
        """Windows of ``sfft.max_length`` tokens, shuffled by seed."""
        return dealt(job, partial(PackedStream, width=_sfft(job).max_length))

    def held_out(self, job: Job) -> Plan | None:
        """The documents to evaluate on."""
        shards = held_out_shards(job)
        return PackedStream(shards, eval_layout(job), _sfft(job).max_length) if shards else None

    def epochs(self, job: Job) -> float:
        """``sfft.epoches``."""
        return _sfft(job).epoches

    def steps_per_epoch(self, job: Job, plan: Plan) -> int:
        """``sfft.steps_per_epoch`` when given, else all windows."""
        return _sfft(job).steps_per_epoch or plan.steps_per_epoch

    def model(self, job: Job) -> Any:
        """Load the model folder, or call the user's ``get_model``."""
        pickled = job.folder.root / GET_MODEL_FILE
        if pickled.exists():
            from ray import cloudpickle

            return cloudpickle.loads(pickled.read_bytes())()
        train = job.request.train
        assert train.local_model_dir is not None, "checked when the job was made"
        return registry.find(train.family).load_model(
            train.local_model_dir, dtype="float32"
        )  # the engine keeps fp32 masters

    def objective(self, job: Job) -> Objective:
        """Every token."""
        return NextToken()

    def prompt(self, tokenizer: Any, text: str) -> list[int]:
        """The beginning of a document."""
        return conversations.encode_text(tokenizer, text).ids[:-1]

    def tokenizer(self, job: Job) -> Any:
        """Return the tokenizer of ``sfft.tokenizer_path`` (a folder, or a file in it), else the model folder's."""
        train = job.request.train
        path = Path(_sfft(job).tokenizer_path or train.local_model_dir or "")
        return registry.find(train.family).load_tokenizer(str(path.parent if path.is_file() else path))


def _encode(rows: Iterator[Mapping[str, Any]], tokenizer: Any) -> Iterator[Encoded]:
    """Yield each document's ids, the end token last."""
    end = tokenizer.eos_token_id
    if end is None:
        raise ByzerError("the tokenizer has no end token (eos_token)", do="set tokenizer.eos_token and save it again")
    for number, row in enumerate(rows):
        text = row.get("text")
        if not isinstance(text, str):
            raise ByzerError(
                'pretraining needs a column "text" of strings',
                where=f"row {number} has the columns {', '.join(map(str, row))}",
                do="rename the column, e.g. table.rename(columns={'value': 'text'})",
            )
        ids = tokenizer(text)["input_ids"]
        if not ids or ids[-1] != end:
            ids = [*ids, end]
        yield Encoded(ids, [True] * len(ids))


def _sfft(job: Job) -> SfftParameters:
    return job.request.train.sfft
