"""What a recipe says about rows: how they become token ids. Reading, writing and where it runs are not its business."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol, TypeVar

from byzerllm_adapters.conversations import Begun, Encoded
from byzerllm_adapters.errors import ByzerError

from .bad_rows import placed
from .parts import Batch, Part, read

T = TypeVar("T")


class Encoder(Protocol):
    """Turns rows into examples. A frozen dataclass of a module: it travels to other processes.

    Its fields are all that its answers depend on, so that what equal encoders made of equal rows is found again.

    Attributes:
        columns: The only columns that it looks at; None: all.
        per_row: How many examples a row becomes. They follow one another, and stay together.
        format: What the rows are read as, a key of `byzerllm_adapters.rows.COLUMNS`.
        tokenizer: A transformers tokenizer.
    """

    columns: ClassVar[Sequence[str] | None]
    per_row: ClassVar[int]

    @property
    def format(self) -> str:
        """What the rows are read as."""
        ...

    @property
    def tokenizer(self) -> Any:
        """A transformers tokenizer."""
        ...

    def begin(self, batch: Batch) -> Begun:
        """Begin with a batch; what is returned gives each row's examples, or for each of them why there is none."""
        ...


def encode_part(encoder: Encoder, part: Part, *, drop: bool) -> Iterator[list[Encoded | ByzerError]]:
    """Yield a part's examples, in order and in batches.

    Args:
        encoder: Tokenises.
        part: What to tokenise.
        drop: Whether rows that do not fit are left out: then its error comes for each of its examples.

    Raises:
        ByzerError: a row does not fit, with its place; or a file is not what its name says.
    """
    with _garbage_left() as collect:
        for batch, begun in _one_ahead((batch, encoder.begin(batch)) for batch in read(part, encoder.columns)):
            found = begun()
            assert len(found) == encoder.per_row * len(batch)
            for index, each in enumerate(found):
                if isinstance(each, ByzerError) and not drop:
                    raise placed(each, part.place(batch.numbers[index // encoder.per_row]), encoder.format)
            yield found
            collect()


def _one_ahead(each: Iterable[T]) -> Iterator[T]:
    """Yield each of them when the next one is there already."""
    waiting = deque[T]()
    try:
        for one in each:
            waiting.append(one)
            if len(waiting) > 1:
                yield waiting.popleft()
    except ByzerError:  # what stands before it may have an error of its own, which is the first
        yield from waiting
        raise
    yield from waiting


@contextmanager
def _garbage_left() -> Iterator[Callable[[], object]]:
    """Collect garbage only when the yielded function is called, and only among objects that are made meanwhile.

    Python's own collections, mostly of what libraries hold, took a quarter of the time of tokenising.
    """
    enabled = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
