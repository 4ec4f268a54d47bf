"""What a recipe says about rows: how they become token ids. Reading, writing and where it runs are not its business."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError

from .parts import Batch, Part, read


class Encoder(Protocol):
    """Turns rows into examples. A frozen dataclass of a module: it travels to other processes.

    Its fields are all that its answers depend on, so that what equal encoders made of equal rows is found again.

    Attributes:
        columns: The only columns that it looks at; None: all.
        tokenizer: A transformers tokenizer.
    """

    columns: ClassVar[Sequence[str] | None]

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer."""
        ...

    def encode(self, batch: Batch) -> list[Encoded | ByzerError]:
        """Return each row's example, or why there is none; the error's place is what follows the row's number."""
        ...


def encode_part(encoder: Encoder, part: Part) -> Iterator[list[Encoded]]:
    """Yield a part's examples, in order and in batches.

    Raises:
        ByzerError: a row that does not fit; it names the row.
    """
    number = part.first
    for batch in read(part, encoder.columns):
        yield [_example(found, row) for row, found in enumerate(encoder.encode(batch), start=number)]
        number += len(batch)


def _example(found: Encoded | ByzerError, row: int) -> Encoded:
    if isinstance(found, ByzerError):
        raise ByzerError(found.what, where=f"row {row} {found.where}".rstrip(), do=found.do)
    return found
