"""(Continued) pretraining of all weights on running text: documents joined with the end token, packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError

from .job_folder import Record
from .own_partitions import partition_counts
from .packing import PackedStream, Plan
from .parts import Batch, column
from .recipe import Job, dealt, eval_layout
from .tokenise import held_out_shards, tokenise

if TYPE_CHECKING:
    from .optimization_parameters import SfftParameters

GET_MODEL_FILE = "get_model.pkl"
"""A user's ``get_model`` function, pickled by value into the job folder."""


class Pretraining:
    """The recipe of ``pretrainedModelType="sfft/NAME"``."""

    def prepare(self, job: Job) -> Record:
        """Tokenise the documents, each followed by the end token."""
        tokenizer = self.tokenizer(job)
        tokenised = tokenise(job, lambda _names: Documents(tokenizer))
        shards = tokenised.train
        plan = self.plan(job)  # refuses an empty text
        self.held_out(job)
        empty = int((shards.lengths == 0).sum())
        counts = {"documents": len(shards) - empty, "tokens": len(shards.tokens)}
        counts |= {"empty_documents": empty} if empty else {}
        return counts | tokenised.counts | partition_counts(shards, plan)

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

    def tokenizer(self, job: Job) -> Any:
        """Return the tokenizer of ``sfft.tokenizer_path`` (a folder or a file), else the model folder's."""
        train = job.request.train
        return registry.find(train.family).load_tokenizer(_sfft(job).tokenizer_path or train.local_model_dir or "")


@dataclass(frozen=True)
class Documents:
    """Encodes texts, each with the end token behind it (see `Encoder`); a text without a character has no token."""

    tokenizer: Any
    columns: ClassVar[Sequence[str] | None] = ("text",)

    def encode(self, batch: Batch) -> list[Encoded | ByzerError]:
        """Return each text's ids; all are learned."""
        texts = column(batch, "text")
        written = [text for text in texts if isinstance(text, str) and text]
        encoded = iter(conversations.encode_texts(self.tokenizer, written))
        return [self._example(text, encoded, batch, row) for row, text in enumerate(texts)]

    def _example(self, text: object, encoded: Iterator[Encoded], batch: Batch, row: int) -> Encoded | ByzerError:
        if isinstance(text, str):
            return next(encoded) if text else Encoded([], [])
        names = batch[row] if isinstance(batch, list) else batch.schema.names
        return ByzerError(
            'pretraining needs a column "text" of strings',
            where=f"has the columns {', '.join(map(str, names))}",
            do="rename the column, e.g. table.rename(columns={'value': 'text'})",
        )


def _sfft(job: Job) -> SfftParameters:
    return job.request.train.sfft
