import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.chat import Conversation, Exchange
from byzerllm_magics.session import Session

USAGE = {"input_tokens_count": 9, "generated_tokens_count": 4, "finish_reason": "stop"}


class FakeModel:
    """A deployment that says what it is told to, one word more at a time."""

    def __init__(self, name: str = "chat", answer: str = "The red stone.", error: Exception | None = None) -> None:
        self.name, self.answer, self.error = name, answer, error
        self.requests: list[dict[str, Any]] = []
        self.closed = 0

    def stream(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.requests.append(dict(request))
        try:
            words = self.answer.split(" ")
            for count in range(1, len(words) + 1):
                time.sleep(0.002)
                extra = USAGE if count == len(words) else {}
                yield {"text": " ".join(words[:count]), "extra": extra}
            if self.error:
                raise self.error
        finally:
            self.closed += 1


def ask(model: FakeModel, conversation: Conversation, text: str = "What is red?", **options: Any) -> Exchange:
    return Exchange(model, conversation, text, options)  # type: ignore[arg-type]


def test_an_answer_arrives_in_pieces_and_is_kept() -> None:
    model, conversation = FakeModel(), Conversation()
    exchange = ask(model, conversation)
    assert list(exchange) == ["The", " red", " stone."]
    assert exchange.answer == "The red stone."
    assert conversation.messages == [
        {"role": "user", "content": "What is red?"},
        {"role": "assistant", "content": "The red stone."},
    ]


def test_a_question_goes_with_what_was_said_before_and_its_options() -> None:
    model, conversation = FakeModel(), Conversation()
    list(ask(model, conversation, "One?"))
    list(ask(model, conversation, "Two?", temperature=0.0))
    first, second = model.requests
    assert first == {"instruction": "One?", "history": []}
    assert (second["instruction"], second["temperature"]) == ("Two?", 0.0)
    assert [turn["content"] for turn in second["history"]] == ["One?", "The red stone."]
    assert len(conversation.messages) == 4


def test_an_interrupt_keeps_what_arrived_and_frees_the_replica() -> None:
    model, conversation = FakeModel(), Conversation()
    exchange = ask(model, conversation)
    try:
        for piece in exchange:
            if piece == " red":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        text = str(exchange.answer)
    assert text == "The red"
    assert model.closed == 1
    assert [turn["content"] for turn in conversation.messages] == ["What is red?", "The red"]


def test_an_error_midway_keeps_what_arrived() -> None:
    conversation = Conversation()
    exchange = ask(FakeModel(error=ByzerError("the replica died")), conversation)
    with pytest.raises(ByzerError, match="the replica died"):
        list(exchange)
    assert conversation.messages[-1]["content"] == "The red stone."


def test_a_question_without_an_answer_is_not_kept() -> None:
    conversation = Conversation()
    with pytest.raises(ByzerError):
        list(ask(FakeModel(answer="", error=ByzerError("too long")), conversation))
    assert conversation.messages == []


def test_an_answer_is_text_with_facts_about_it() -> None:
    exchange = ask(FakeModel(), Conversation())
    list(exchange)
    answer = exchange.answer
    metadata = answer.metadata
    assert answer.upper() == "THE RED STONE."
    assert metadata.keys() == {"model", *USAGE, "first_token_time", "time_cost", "speed"}
    assert metadata["model"] == "chat"
    assert 0 <= metadata["first_token_time"] <= metadata["time_cost"]
    assert metadata["speed"] == pytest.approx(4000 / metadata["time_cost"], rel=0.5)
    assert exchange.answer.metadata["time_cost"] == metadata["time_cost"], "it does not grow after the end"


def test_a_summary_is_one_line() -> None:
    exchange = ask(FakeModel(), Conversation())
    list(exchange)
    summary = exchange.summary()
    assert summary.startswith("4 tokens · ")
    assert "first token" in summary
    assert "\n" not in summary


def test_before_it_is_asked_a_question_has_taken_no_time() -> None:
    exchange = ask(FakeModel(), Conversation())
    assert (exchange.answer, exchange.answer.metadata["time_cost"], exchange.summary()) == ("", 0.0, "")


def test_an_answer_that_was_cut_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(USAGE, "finish_reason", "length")
    exchange = ask(FakeModel(), Conversation())
    list(exchange)
    assert exchange.summary().endswith("cut at the length limit")


# -- a session's conversations ----------------------------------------------------------------------------


@pytest.fixture
def models() -> dict[str | None, FakeModel]:
    made: dict[str | None, FakeModel] = {name: FakeModel(name) for name in ("chat", "other")}
    return made | {None: made["chat"]}


@pytest.fixture
def session(models: dict[str | None, FakeModel], monkeypatch: pytest.MonkeyPatch) -> Session:
    session = Session()
    monkeypatch.setattr(session, "model", lambda name=None: models[name])
    return session


def histories(model: FakeModel) -> list[list[str]]:
    return [[turn["content"] for turn in request["history"]] for request in model.requests]


def test_each_model_has_its_own_conversation(session: Session, models: dict[str | None, FakeModel]) -> None:
    for name in ("chat", "other", "chat"):
        list(session.chat(f"Hello {name}?", model=name))
    assert histories(models["chat"]) == [[], ["Hello chat?", "The red stone."]]
    assert histories(models["other"]) == [[]]


def test_new_forgets_what_was_said(session: Session, models: dict[str | None, FakeModel]) -> None:
    for new in (False, True, False):
        list(session.chat("Hello?", new=new))
    assert histories(models["chat"]) == [[], [], ["Hello?", "The red stone."]]


def test_a_system_message_begins_a_conversation_and_stays_in_it(
    session: Session, models: dict[str | None, FakeModel]
) -> None:
    list(session.chat("One?"))
    list(session.chat("Two?", system="Be brief."))
    list(session.chat("Three?"))
    assert histories(models["chat"])[1:] == [["Be brief."], ["Be brief.", "Two?", "The red stone."]]
    assert models["chat"].requests[2]["history"][0]["role"] == "system"


def test_options_are_those_that_an_adapter_knows(session: Session, models: dict[str | None, FakeModel]) -> None:
    list(session.chat("Hello?", temperature=0.0, max_tokens=8))
    request = models["chat"].requests[0]
    assert (request["temperature"], request["generation.max_new_tokens"]) == (0.0, 8)
    list(session.chat("Hello?"))
    assert models["chat"].requests[1].keys() == {"instruction", "history"}
