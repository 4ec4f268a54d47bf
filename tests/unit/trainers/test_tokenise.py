"""Rows become shards: in order, each named by its number when it does not fit, and only once for the same content."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from byzerllm_adapters import conversations, registry
from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers import recipe, reuse, tokenise
from byzerllm_trainers.corpus import EVAL_ROWS_FILE, ROWS_FILE, keep_partitions, keep_rows
from byzerllm_trainers.encoder import encode_part
from byzerllm_trainers.job_request import read_request
from byzerllm_trainers.recipe import Job
from byzerllm_trainers.shards import FILES, Shards, open_shards, write_shards
from tests.tiny import instructions, texts

ROWS = pa.Table.from_pandas(instructions(40))


def arrays(shards: Shards) -> list[list[Any]]:
    return [np.asarray(array).tolist() for array in (shards.tokens, shards.mask, shards.offsets)]


def reading(job: Job, data_dir: Path) -> Job:
    """The job with ``localDataDir`` in place of its table."""
    (job.folder.data / ROWS_FILE).unlink()
    request = job.folder.request()
    request["parameters"]["localDataDir"] = str(data_dir)
    (job.folder.root / "job.json").write_text(json.dumps(request))
    return Job(job.folder, read_request(job.folder))


def prepare(job: Job) -> dict[str, Any]:
    return recipe.find(job.request.train.method).prepare(job)


def test_shards_hold_the_ids_and_masks_of_each_row_by_itself_in_order(make_job: Any, tiny_model: Path) -> None:
    frame = instructions(2500)
    job = make_job("sft", pa.Table.from_pandas(frame), max_seq_length=60)
    prepare(job)
    tokenizer = registry.find("llama").load_tokenizer(str(tiny_model))
    shards = open_shards(job.folder.shards)
    for number, row in enumerate(frame.to_dict("records")):
        expected = conversations.encode_row(tokenizer, row, "alpaca", 60)
        ids, mask = shards.example(number)
        assert (ids.tolist(), mask.tolist()) == (expected.ids, expected.mask)


def test_documents_are_joined_with_the_end_token_in_order(make_job: Any, tiny_model: Path) -> None:
    job = make_job("sfft", pa.Table.from_pandas(texts(2500)))
    assert prepare(job)["documents"] == 2500
    tokenizer = registry.find("llama").load_tokenizer(str(tiny_model))
    assert tokenizer.decode(open_shards(job.folder.shards).tokens) == "".join(
        f"{text}</s>" for text in texts(2500).text
    )


def test_a_bos_that_the_tokenizer_writes_begins_each_document(make_job: Any, tiny_model: Path, tmp_path: Path) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.save_pretrained(tmp_path / "with-bos")
    job = make_job("sfft", pa.table({"text": ["The stone.", "The river."]}), tokenizer_path=str(tmp_path / "with-bos"))
    prepare(job)
    assert tokenizer.decode(open_shards(job.folder.shards).tokens) == "<s>The stone.</s><s>The river.</s>"


def test_an_empty_document_has_no_token_keeps_its_place_and_is_counted(make_job: Any) -> None:
    job = make_job("sfft", pa.table({"text": ["", "a", "", "b"]}), workers=2)
    keep_partitions(job.folder, [2, 2])
    counts = prepare(job)
    shards = open_shards(job.folder.shards)
    assert (counts["documents"], counts["empty_documents"]) == (2, 2)
    assert shards.lengths.tolist() == [0, 2, 0, 2]
    assert shards.partitions == [0, 2, 4]


@pytest.mark.parametrize("documents", [[], [""], ["", ""]])
def test_pretraining_on_nothing_is_refused(make_job: Any, documents: list[str]) -> None:
    job = make_job("sfft", pa.table({"text": pa.array(documents, pa.string())}))
    with pytest.raises(ByzerError, match=r"the table has no rows|the text holds no tokens to train on"):
        prepare(job)


def test_files_that_hold_no_rows_are_refused(make_job: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("\n\n")
    job = reading(make_job("sft", ROWS), tmp_path / "data")
    with pytest.raises(ByzerError, match="have no rows"):
        prepare(job)


def test_an_error_names_the_row_wherever_it_stands(make_job: Any) -> None:
    rows = instructions(3000)
    rows.loc[2999, "output"] = " "
    with pytest.raises(ByzerError, match="output is empty") as caught:
        prepare(make_job("sft", pa.Table.from_pandas(rows)))
    assert caught.value.where == "row 2999 (format alpaca)"


def test_an_error_of_the_template_names_the_row_too(make_job: Any) -> None:
    messages = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], []]
    messages[1] = [{"role": "assistant", "content": "a"}]
    with pytest.raises(ByzerError, match="starts with an answer") as caught:
        prepare(make_job("sft", pa.table({"messages": messages})))
    assert caught.value.where == "row 1 (format messages)"


@pytest.mark.parametrize("local", [False, True])
def test_many_rows_are_the_clusters_unless_only_this_node_sees_their_folder(
    make_job: Any, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    asked = list[Path]()
    monkeypatch.setattr(tokenise, "IN_PROCESS_ROWS", 39)
    monkeypatch.setattr(tokenise, "_on_cluster", lambda: True)
    monkeypatch.setattr(
        tokenise,
        "encode_on_cluster",
        lambda encoder, parts, scratch, *, drop: asked.append(scratch) or iter(_shards(encoder, parts, scratch, drop)),
    )
    job = make_job("sft", ROWS)
    assert prepare(replace(job, local=local))["examples"] == 40
    assert asked == ([] if local else [job.folder.shards.with_name("shards-parts")])


def _shards(encoder: Any, parts: Any, scratch: Path, drop: bool) -> Iterator[Shards]:
    for number, part in enumerate(parts):
        rows = chain.from_iterable(encode_part(encoder, part, drop=drop))
        yield write_shards(scratch / str(number), rows)


# -- found again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"eval_ratio": 0.25}])
def test_the_same_content_is_tokenised_once(
    make_job: Any, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    first, second = make_job("sft", ROWS, **keys), make_job("sft", ROWS, learning_rate=1e-5, **keys)
    counts = prepare(first)
    monkeypatch.setattr("byzerllm_trainers.tokenise.encode_part", None)
    assert prepare(second) == counts | {"reused": first.folder.name}
    for one, other in ((first.folder.shards, second.folder.shards), (first.folder.held_out, second.folder.held_out)):
        assert one.exists() == other.exists()
        if one.exists():
            assert arrays(open_shards(one)) == arrays(open_shards(other))


def test_shards_that_were_found_again_outlive_the_job_that_made_them(make_job: Any) -> None:
    first, second = make_job("sft", ROWS), make_job("sft", ROWS)
    prepare(first)
    expected = arrays(open_shards(first.folder.shards))
    prepare(second)
    shutil.rmtree(first.folder.root)
    assert arrays(open_shards(second.folder.shards)) == expected


def test_tokenising_anew_leaves_the_files_of_other_jobs_alone(make_job: Any) -> None:
    first, second = make_job("sft", ROWS), make_job("sft", ROWS)
    prepare(first)
    prepare(second)
    expected = arrays(open_shards(second.folder.shards))
    keep_rows(first.folder, ROWS.slice(0, 7))
    assert "reused" not in prepare(first)
    assert len(open_shards(first.folder.shards)) == 7
    assert arrays(open_shards(second.folder.shards)) == expected


def test_where_there_are_no_hard_links_the_files_are_copied(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    first, second = make_job("sft", ROWS), make_job("sft", ROWS)
    prepare(first)
    monkeypatch.setattr(reuse.os, "link", refuse)
    assert prepare(second)["reused"] == first.folder.name
    for name in FILES:
        assert (first.folder.shards / name).read_bytes() == (second.folder.shards / name).read_bytes()


def test_shards_that_vanish_meanwhile_are_made_anew(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(source: Path, _target: Path) -> None:
        raise FileNotFoundError(source)

    first, second = make_job("sft", ROWS, eval_ratio=0.25), make_job("sft", ROWS, eval_ratio=0.25)
    counts = prepare(first)
    monkeypatch.setattr(reuse.os, "link", gone)
    assert prepare(second) == counts


def change_rows(job: Job) -> None:
    keep_rows(job.folder, ROWS.slice(1))


def change_order(job: Job) -> None:
    keep_rows(job.folder, ROWS.take(list(range(39, -1, -1))))


def add_evaluation(job: Job) -> None:
    keep_rows(job.folder, ROWS.slice(0, 3), EVAL_ROWS_FILE)


def add_partitions(job: Job) -> None:
    keep_partitions(job.folder, [40])


@pytest.mark.parametrize("change", [change_rows, change_order, add_evaluation, add_partitions])
def test_other_data_is_other_content(make_job: Any, change: Any) -> None:
    first, second = make_job("sft", ROWS), make_job("sft", ROWS)
    prepare(first)
    change(second)
    assert "reused" not in prepare(second)


@pytest.mark.parametrize(
    "keys", [{"max_seq_length": 60}, {"eval_ratio": 0.5}, {"on_bad_row": "drop"}, {"user_role": "Human"}]
)
def test_other_settings_are_other_content(make_job: Any, keys: dict[str, Any]) -> None:
    prepare(make_job("sft", ROWS))
    assert "reused" not in prepare(make_job("sft", ROWS, **keys))


def test_another_seed_is_other_content_only_where_it_holds_rows_out(make_job: Any) -> None:
    prepare(make_job("sft", ROWS))
    assert "reused" in prepare(make_job("sft", ROWS, data_seed=5))
    prepare(make_job("sft", ROWS, eval_ratio=0.5))
    assert "reused" not in prepare(make_job("sft", ROWS, eval_ratio=0.5, data_seed=5))


def test_the_tokenizer_and_its_template_are_content_and_where_they_lie_is_not(
    make_job: Any, tiny_model: Path, tmp_path: Path
) -> None:
    rows = pa.Table.from_pandas(texts(20))
    prepare(make_job("sfft", rows))
    elsewhere, changed = tmp_path / "elsewhere", tmp_path / "changed"
    for folder in (elsewhere, changed):
        folder.mkdir()
        for file in tiny_model.glob("*token*"):
            shutil.copy(file, folder)
    (changed / "chat_template.jinja").write_text("{{ messages }}")
    assert "reused" in prepare(make_job("sfft", rows, tokenizer_path=str(elsewhere)))
    assert "reused" not in prepare(make_job("sfft", rows, tokenizer_path=str(changed)))


def test_another_release_of_the_code_is_other_content(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(make_job("sft", ROWS))
    monkeypatch.setattr(reuse, "version", lambda _name: "0")
    assert "reused" not in prepare(make_job("sft", ROWS))


@pytest.mark.parametrize("module", [*reuse.DECIDING, "byzerllm_trainers.sft"])
def test_another_source_of_what_decides_is_other_content(
    make_job: Any, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    digest = reuse._code
    prepare(make_job("sft", ROWS))
    assert "reused" in prepare(make_job("sft", ROWS, finetuning_type="full", resize_vocab=True))
    monkeypatch.setattr(reuse, "_code", lambda name: "changed" if name == module else digest(name))
    assert "reused" not in prepare(make_job("sft", ROWS))


def test_files_are_found_again_by_their_content_not_their_place(make_job: Any, tmp_path: Path) -> None:
    jobs = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "rows.jsonl").write_text(json.dumps({"text": "the same"}) + "\n")
        jobs.append(reading(make_job("sfft", ROWS), tmp_path / place))
    prepare(jobs[0])
    assert prepare(jobs[1])["reused"] == jobs[0].folder.name
