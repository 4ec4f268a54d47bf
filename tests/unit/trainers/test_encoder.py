"""Parts are encoded one batch ahead: errors come in the order of the rows, and the collector is left as it was."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from byzerllm_adapters.conversations import Begun, Encoded
from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import parts
from byzerllm_trainers.encoder import encode_part
from byzerllm_trainers.parts import Batch, Part, cut


@dataclass(frozen=True)
class Lengths:
    """Makes of each text as many tokens as it has characters; an empty one does not fit."""

    begun: list[int]
    format: str = "text"
    tokenizer: Any = None
    columns: ClassVar[Sequence[str] | None] = None
    per_row: ClassVar[int] = 1

    def begin(self, batch: Batch) -> Begun:
        self.begun.append(len(batch))
        texts = batch.column("text")
        return lambda: [Encoded([1] * len(t), [True] * len(t)) if t else ByzerError("it is empty") for t in texts]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_AT_ONCE", 2)


def lines(folder: Path, *written: bytes) -> Part:
    path = folder / "rows.jsonl"
    path.write_bytes(b"\n".join(written) + b"\n")
    [part] = cut([path])
    return part


def texts(*given: str) -> list[bytes]:
    return [f'{{"text": "{text}"}}'.encode() for text in given]


def test_batches_come_in_order_each_when_the_next_has_begun(tmp_path: Path) -> None:
    begun: list[int] = []
    part = lines(tmp_path, *texts("a", "bb", "ccc", "dddd", "eeeee"))
    found = []
    for batch in encode_part(Lengths(begun), part, drop=False):
        found.append(([len(each.ids) for each in batch if isinstance(each, Encoded)], len(begun)))
    assert found == [([1, 2], 2), ([3, 4], 3), ([5], 3)]


def test_a_row_that_does_not_fit_is_told_before_what_cannot_be_read_behind_it(tmp_path: Path) -> None:
    part = lines(tmp_path, *texts("a", "", "c"), b'{"text": "\xff"}')
    with pytest.raises(ByzerError, match="it is empty") as caught:
        list(encode_part(Lengths([]), part, drop=False))
    assert "line 2" in caught.value.where
    with pytest.raises(ByzerError, match="is not UTF-8"):
        list(encode_part(Lengths([]), part, drop=True))


def all_of(batches: Iterator[Any]) -> None:
    list(batches)


def first_of(batches: Iterator[Any]) -> None:
    next(batches)
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("consume", [all_of, first_of])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("last", ["e", ""], ids=["whole", "with an error"])
def test_the_garbage_collector_is_afterwards_as_it_was(
    tmp_path: Path, consume: Callable[[Iterator[Any]], None], enabled: bool, last: str
) -> None:
    part = lines(tmp_path, *texts("a", "b", "c", "d", last))
    before = gc.isenabled()
    gc.enable() if enabled else gc.disable()
    try:
        try:
            consume(encode_part(Lengths([]), part, drop=False))
        except ByzerError:
            assert not last
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable() if before else gc.disable()
