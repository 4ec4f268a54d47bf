"""(Continued) pretraining of all weights on running text: documents joined with the end token, packed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.conversations import Begun, Encoded
from byzerllm_adapters.errors import ByzerError

from .bad_rows import check_rows
from .context_length import beyond_context
from .engine import precision
from .job_folder import Record
from .loss import NextToken, Objective
from .own_partitions import partition_counts
from .packing import PackedStream, Plan
from .parts import Batch, Row
from .recipe import Job, dealt, eval_layout
from .tokenise import held_out_shards, tokenise
from .vocabulary import fit_vocabulary

if TYPE_CHECKING:
    from .optimization_parameters import SfftParameters

GET_MODEL_FILE = "get_model.pkl"
"""A user's ``get_model`` function, pickled by value into the job folder."""


class Pretraining:
    """The recipe of ``pretrainedModelType="sfft/NAME"``."""

    def format_of(self, columns: Iterable[str]) -> str:
        """The documents are in the column "text"."""
        names = list(columns)
        if "text" not in names:
            raise ByzerError(
                f'pretraining needs a column "text"; this table has: {", ".join(names)}',
                do="rename the column, e.g. table.rename(columns={'value': 'text'})",
            )
        return "text"

    def check(self, rows: Iterable[Row], kind: str, *, drop: bool) -> None:
        """Every row has a text, which may be empty."""
        check_rows(rows, lambda row: _refuse_without_text(row.get("text"), list(row)), kind, drop=drop)

    def prepare(self, job: Job) -> Record:
        """Tokenise the documents, each followed by the end token."""
        tokenizer = self.tokenizer(job)
        tokenised = tokenise(job, lambda kind: Documents(tokenizer, kind))
        shards = tokenised.train
        plan = self.plan(job)  # refuses an empty text
        self.held_out(job)
        empty = int((shards.offsets[1:] == shards.offsets[:-1]).sum())  # 10^7 lengths would take 80 MB
        counts = {
            "format": tokenised.format,
            "documents": len(shards) - empty,
            **({"empty_documents": empty} if empty else {}),
            **tokenised.dropped,
            "tokens": len(shards.tokens),
        }
        longest = beyond_context(job.request.train.local_model_dir, min(_sfft(job).max_length, len(shards.tokens)))
        return counts | longest | tokenised.counts | partition_counts(shards, plan)

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
        """Load the model folder, begin with new weights, or call the user's ``get_model``; in fp32, the masters'."""
        tokenizer = self.tokenizer(job)
        model = _start(job, len(tokenizer))
        fit_vocabulary(model, tokenizer, job)
        return model

    def about_model(self, job: Job) -> Record:
        """The precision that it is trained in, and that its weights are new where the cell says so."""
        about: Record = {"precision": precision(job.request.loop)}
        if _sfft(job).from_scratch:
            about["message"] = "new weights, as config.json describes the model"
        return about

    def objective(self, job: Job) -> Objective:
        """Every token."""
        return NextToken()

    def prompt(self, tokenizer: Any, text: str) -> list[int]:
        """The beginning of a document."""
        return conversations.encode_text(tokenizer, text).ids[:-1]

    def tokenizer(self, job: Job) -> Any:
        """Return the tokenizer of ``sfft.tokenizer_path`` (a folder or a file), else the model folder's."""
        train = job.request.train
        return registry.find(train.family).load_tokenizer(_sfft(job).tokenizer_path or train.local_model_dir or "")


@dataclass(frozen=True)
class Documents:
    """Encodes texts, each with the end token behind it (see `Encoder`); a text without a character has no token."""

    tokenizer: Any
    format: str
    columns: ClassVar[Sequence[str] | None] = ("text",)
    per_row: ClassVar[int] = 1

    def begin(self, batch: Batch) -> Begun:
        """Return what gives each text's ids; all are learned."""
        texts = batch.column("text")
        written = [text for text in texts if isinstance(text, str) and text]
        encoded = iter(conversations.encode_texts(self.tokenizer, written))
        found = [
            next(encoded) if isinstance(text, str) and text else _without_text(text, batch.names(row))
            for row, text in enumerate(texts)
        ]
        return lambda: found


def _without_text(text: object, columns: Sequence[str]) -> Encoded | ByzerError:
    """Return what becomes of a row in which there is nothing to learn."""
    if isinstance(text, str):
        return Encoded([], [])
    if isinstance(text, ByzerError):
        return text
    if "text" in columns:
        return ByzerError("text is missing" if text is None else f"text is {type(text).__name__}, not a string")
    return ByzerError(
        'pretraining needs a column "text" of strings', do=f"this row has the columns {', '.join(columns)}; rename one"
    )


def _refuse_without_text(text: object, columns: Sequence[str]) -> None:
    if isinstance(found := _without_text(text, columns), ByzerError):
        raise found


def _start(job: Job, tokens: int) -> Any:
    """Return the model that training begins with.

    New weights are drawn before DeepSpeed partitions them. Within ``deepspeed.zero.Init`` the embeddings of some
    families came out with a standard deviation of 1 in place of the configuration's 0.02 (DeepSpeed#2650).
    """
    pickled, train = job.folder.root / GET_MODEL_FILE, job.request.train
    if pickled.exists():
        return _called(pickled)
    family = registry.find(train.family)  # may register its classes
    if train.sfft.from_scratch:
        from byzerllm_adapters.loading import new_model

        return new_model(train.local_model_dir, vocabulary=tokens if train.sfft.resize_vocab else 0)
    return family.load_model(train.local_model_dir, dtype="float32")


def _called(pickled: Path) -> Any:
    """Call the user's ``get_model``."""
    from ray import cloudpickle
    from transformers import PreTrainedModel

    model = cloudpickle.loads(pickled.read_bytes())()
    if not isinstance(model, PreTrainedModel):
        raise ByzerError(
            f"get_model returned a {type(model).__name__}, which is not a model of transformers",
            do="return a causal language model, e.g. BaiChuanForCausalLM(BaiChuanConfig())",
        )
    return model


def _sfft(job: Job) -> SfftParameters:
    return job.request.train.sfft
