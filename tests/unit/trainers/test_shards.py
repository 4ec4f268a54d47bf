from pathlib import Path

import numpy as np
import pytest

from byzerllm_adapters.conversations import Encoded
from byzerllm_trainers.shards import open_shards, write_shards
from tests.unit.trainers.helpers import examples, skewed_lengths


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    rows = examples(skewed_lengths(50))
    write_shards(tmp_path, rows)
    shards = open_shards(tmp_path)
    assert len(shards) == 50
    for index, row in enumerate(rows):
        ids, mask = shards.example(index)
        assert ids.tolist() == row.ids
        assert mask.tolist() == row.mask


def test_the_first_token_of_an_example_is_never_a_target(tmp_path: Path) -> None:
    rows = [
        Encoded([7, 8, 9], [True, True, True]),
        Encoded([7], [True]),
        Encoded([7, 8], [False, True]),
        Encoded([7, 8], [True, False]),
    ]
    shards = write_shards(tmp_path, rows)
    assert shards.targets.tolist() == [2, 0, 1, 0]
    assert shards.lengths.tolist() == [3, 1, 2, 2]


def test_an_empty_example_has_no_targets_wherever_it_stands(tmp_path: Path) -> None:
    empty, full = Encoded([], []), Encoded([7, 8], [True, True])
    assert write_shards(tmp_path / "a", [empty, full, empty, full, empty]).targets.tolist() == [0, 1, 0, 1, 0]
    assert write_shards(tmp_path / "b", [empty]).targets.tolist() == [0]
    assert write_shards(tmp_path / "c", []).targets.tolist() == []


def test_tokens_are_mapped_not_loaded(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, examples([10, 20]))
    assert isinstance(shards.tokens, np.memmap)
    assert isinstance(shards.mask, np.memmap)


def test_shards_that_were_not_finished_do_not_open(tmp_path: Path) -> None:
    write_shards(tmp_path, examples([10, 20]))

    def dies() -> object:
        yield from examples([5])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, dies())
    with pytest.raises(FileNotFoundError):
        open_shards(tmp_path)
