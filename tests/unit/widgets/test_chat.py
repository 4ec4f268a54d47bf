import pytest

from byzerllm_magics.widgets.chat import ChatView


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sent(monkeypatch):
    messages = []
    monkeypatch.setattr(ChatView, "send", lambda _self, content, _buffers=None: messages.append(content))
    return messages


def test_pieces_travel_alone_and_join_to_the_answer(clock, sent):
    chat = ChatView("hi", clock)
    for piece in ["Hel", "lo 😀", " there"]:
        chat.append(piece)
        clock.now += 0.06
    assert sent == [
        {"type": "piece", "offset": 0, "piece": "Hel"},
        {"type": "piece", "offset": 3, "piece": "lo 😀"},
        {"type": "piece", "offset": 8, "piece": " there"},  # a page counts the smiley twice
    ]
    assert chat.answer == "Hello 😀 there"
    assert chat.text == "Hel"


def test_a_fast_model_sends_at_most_twenty_messages_and_two_texts_a_second(clock, sent):
    chat, texts = ChatView("hi", clock), []
    chat.observe(texts.append, "text")
    for _ in range(1000):
        chat.append("x")
        clock.now += 0.001
    assert len(sent) <= 21
    assert len(texts) <= 3
    assert "".join(message["piece"] for message in sent) == "x" * sum(len(m["piece"]) for m in sent)


def test_the_end_brings_the_whole_text_the_footer_and_the_state(clock, sent):
    chat = ChatView("hi", clock)
    assert chat.state == "waiting"
    chat.append("a")
    chat.append("b")
    assert chat.state == "streaming"
    chat.finish("2 tokens", "stopped")
    assert (chat.text, chat.stats, chat.state) == ("ab", "2 tokens", "stopped")


def test_an_empty_piece_is_not_the_first_token(clock, sent):
    chat = ChatView("hi", clock)
    chat.append("")
    assert chat.state == "waiting"
    assert sent == []
