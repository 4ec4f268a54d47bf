from pathlib import Path

import numpy as np
import pytest

from byzerllm_adapters.conversations import Encoded
from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import shards as shards_module
from byzerllm_trainers.shards import FILES, MANIFEST, open_shards, shard_writer, write_shards
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


def test_targets_do_not_depend_on_how_many_examples_are_counted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*examples(skewed_lengths(20)), Encoded([], []), Encoded([7], [True])]
    expected = write_shards(tmp_path / "a", rows).targets.tolist()
    monkeypatch.setattr(shards_module, "AT_ONCE", 3)
    assert write_shards(tmp_path / "b", rows).targets.tolist() == expected


def test_chosen_examples_are_copied_in_the_order_asked_for(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "all", [*examples([3, 5, 2]), Encoded([], [])])
    with shard_writer(tmp_path / "some") as writer:
        writer.append(shards.take(np.array([2, 0])))
        writer.append(shards.take(np.array([3, 1])))
        writer.append(shards.take(np.array([], dtype=np.int64)))
    copied = open_shards(tmp_path / "some")
    assert len(copied) == 4
    for new, old in enumerate([2, 0, 3, 1]):
        for one, other in zip(copied.example(new), shards.example(old), strict=True):
            assert one.tolist() == other.tolist()


def test_writing_a_folder_anew_leaves_linked_files_alone(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", examples([10]))
    before = (tmp_path / "a" / "tokens.bin").read_bytes()
    (tmp_path / "linked.bin").hardlink_to(tmp_path / "a" / "tokens.bin")
    write_shards(tmp_path / "a", examples([3]))
    assert (tmp_path / "linked.bin").read_bytes() == before


def test_dropped_rows_are_remembered_and_partitions_count_what_is_left(tmp_path: Path) -> None:
    one, two, three = examples([3, 5, 2])
    first, second = ByzerError("no answer", do="add one"), ByzerError("other")
    rows = [one, first, two, second, three]
    shards = write_shards(tmp_path / "a", rows, [0, 2, 4, 5])
    assert (len(shards), shards.dropped.tolist(), shards.partitions) == (3, [1, 3], [0, 1, 2, 3])
    assert str(shards.why) == str(first)
    with shard_writer(tmp_path / "b") as writer:
        writer.add(rows[:1])
        writer.append(write_shards(tmp_path / "c", rows[1:3]))
        writer.add(rows[3:])
        writer.partitions = writer.left([0, 2, 4, 5])
    for name in (*FILES, MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    whole = write_shards(tmp_path / "d", [one])
    assert (whole.dropped.tolist(), whole.why) == ([], None)


def test_examples_are_mapped_not_loaded(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, examples([10, 20]))
    for each in (shards.tokens, shards.mask, shards.offsets):
        assert isinstance(each.base, np.memmap)
        assert not each.flags.writeable


def test_shards_that_were_not_finished_do_not_open(tmp_path: Path) -> None:
    write_shards(tmp_path, examples([10, 20]))

    def dies() -> object:
        yield from examples([5])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, dies())
    with pytest.raises(FileNotFoundError):
        open_shards(tmp_path)
