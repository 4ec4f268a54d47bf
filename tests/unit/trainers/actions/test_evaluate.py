"""A model's loss on a table is that of training; its greedy answers are scored row by row."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from byzerllm_adapters import causal_lm
from byzerllm_adapters.conversations import encode_conversation, encode_prompt
from byzerllm_adapters.errors import MAX_LINES, ByzerError
from byzerllm_adapters.rows import to_messages
from byzerllm_trainers.actions.answers import Answers, Question, exact_match, questions_of, scores_of
from byzerllm_trainers.actions.evaluate import Evaluating, check_rows, evaluate_folder, scored
from tests.tiny import instructions, texts
from tests.unit.trainers.helpers import plain_loss

HOW = Evaluating(rows=4, max_new_tokens=6, dtype="float32")


def found(steps: Iterator[str | dict[str, Any]]) -> dict[str, Any]:
    *told, record = steps
    assert all(isinstance(line, str) for line in told)
    assert isinstance(record, dict)
    return record


def table(count: int = 10) -> pa.Table:
    return pa.Table.from_pandas(instructions(count))


def greedy(folder: Path, question: str, tokens: int) -> str:
    """The greedy answer as plain transformers generates it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = causal_lm.load_tokenizer(str(folder))
    ids = encode_prompt(tokenizer, [{"role": "user", "content": question}])
    output = model.generate(
        torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
    )
    return str(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)).strip("\ufffd\n ")


def test_the_loss_is_the_mean_over_all_supervised_tokens(tiny_model: Path) -> None:
    facts = found(evaluate_folder(tiny_model, table(), HOW))
    tokenizer = causal_lm.load_tokenizer(str(tiny_model))
    rows = [encode_conversation(tokenizer, to_messages(row, "alpaca")) for row in table().to_pylist()]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert facts["loss"] == pytest.approx(float(plain_loss(model, rows)), abs=1e-5)
    assert facts["perplexity"] == pytest.approx(math.exp(facts["loss"]), abs=1e-3)
    assert facts["tokens"] == sum(sum(row.mask) for row in rows)
    assert facts["rows_cut"] == 0
    assert "predictions" not in facts


def test_the_loss_of_documents_is_over_every_token_but_the_first(tiny_model: Path) -> None:
    documents = pa.Table.from_pandas(texts(20))
    facts = found(evaluate_folder(tiny_model, documents, HOW))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    count = sum(len(tokenizer(text)["input_ids"]) + 1 for text in texts(20).text)
    assert facts["tokens"] == count - 1
    assert facts["loss"] == pytest.approx(math.log(384), abs=0.5), "the model is untrained"


def test_documents_are_seen_in_windows(tiny_model: Path) -> None:
    documents = pa.Table.from_pandas(texts(20))
    one, other = (
        found(evaluate_folder(tiny_model, documents, Evaluating(max_seq_length=width, dtype="float32")))
        for width in (4, 200)
    )
    assert one["tokens"] == other["tokens"]
    assert one["loss"] != other["loss"]


def test_long_rows_are_cut_and_counted(tiny_model: Path) -> None:
    whole = found(evaluate_folder(tiny_model, table(), HOW))
    short = found(evaluate_folder(tiny_model, table(), Evaluating(rows=4, max_seq_length=50, dtype="float32")))
    assert 0 < short["rows_cut"] <= 10
    assert short["tokens"] < whole["tokens"]


def test_a_limit_that_leaves_nothing_to_learn_names_its_key(tiny_model: Path) -> None:
    with pytest.raises(ByzerError, match="every answer is empty or cut off") as caught:
        found(evaluate_folder(tiny_model, table(), Evaluating(max_seq_length=5)))
    assert "raise max_seq_length" in caught.value.do


def test_greedy_answers_are_compared_with_the_references(tiny_model: Path) -> None:
    rows = instructions(4)
    rows.loc[:1, "output"] = [greedy(tiny_model, rows.instruction[row], 6) for row in range(2)]
    facts = found(evaluate_folder(tiny_model, pa.Table.from_pandas(rows), HOW, exact_match))
    assert [text.strip() for text in facts["predictions"][:2]] == list(rows.output[:2])
    assert facts["references"] == list(rows.output)
    assert facts["scores"] == [1.0, 1.0, 0.0, 0.0]
    assert (facts["score"], facts["unanswered"]) == (0.5, 0)


def test_a_users_metric_decides_what_an_answer_is_worth(tiny_model: Path) -> None:
    def length(prediction: str, reference: str) -> float:
        return len(prediction) / len(reference)

    facts = found(evaluate_folder(tiny_model, table(3), HOW, length))
    pairs = zip(facts["predictions"], facts["references"], strict=True)
    assert facts["score"] == pytest.approx(sum(len(p) / len(r) for p, r in pairs) / 3)


def test_an_adapter_is_evaluated_on_its_base(tiny_model: Path, tmp_path: Path) -> None:
    from tests.unit.trainers.helpers import load

    tuned = load(tiny_model, lora=True)
    tuned.save_pretrained(tmp_path)
    one = found(evaluate_folder(tmp_path, table(), HOW))
    assert one["loss"] != found(evaluate_folder(tiny_model, table(), HOW))["loss"]


def test_what_was_not_answered_is_counted_and_not_scored() -> None:
    questions = [Question([], "a", "x"), Question([], "b", "y")]
    facts = scored(Answers(["x", None], [None, "too long"]), questions, exact_match)
    assert (facts["score"], facts["unanswered"], facts["scores"]) == (1.0, 1, [1.0, None])
    with pytest.raises(ByzerError, match="not one of 2 questions was answered: too long"):
        scored(Answers([None, None], ["too long\n→ shorten it", "b"]), questions, exact_match)


@pytest.mark.parametrize(("answer", "what"), [("raise", "ValueError: boom"), (None, "returned None at row 0")])
def test_an_error_of_the_metric_names_the_row_and_its_line(answer: object, what: str) -> None:
    def mine(_prediction: str, _reference: str) -> Any:
        if answer == "raise":
            raise ValueError("boom")
        return answer

    with pytest.raises(ByzerError, match=what) as caught:
        scores_of(Answers(["x"], [None]), [Question([], "a", "x")], mine)
    assert "row 0" in caught.value.what
    assert len(caught.value.render()) <= MAX_LINES
    if answer == "raise":
        assert __file__ in caught.value.where


def test_the_last_answer_of_a_conversation_is_asked_for() -> None:
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    [question] = questions_of([{"messages": [{"role": role, "content": text} for role, text in turns]}])
    assert [turn["content"] for turn in question.history] == ["Be brief.", "a", "b"]
    assert (question.question, question.reference) == ("c", "d")
    with pytest.raises(ByzerError, match="does not end with a question and its answer") as caught:
        questions_of([{"messages": [{"role": role, "content": text} for role, text in turns[:-1]]}])
    assert caught.value.where == "row 0"


def test_a_table_is_checked_before_a_model_is_loaded() -> None:
    assert check_rows(table(), exact_match) is exact_match
    assert check_rows(pa.table({"text": ["a"]}), exact_match) is None
    with pytest.raises(ByzerError, match="the table has no rows"):
        check_rows(table()[:0], exact_match)
    with pytest.raises(ByzerError, match="no data format has the columns a"):
        check_rows(pa.table({"a": [1]}), None)
    with pytest.raises(ByzerError, match="output is empty") as caught:
        check_rows(pa.table({"instruction": ["a", "b"], "output": ["a", ""]}), None)
    assert "row 1" in caught.value.where
