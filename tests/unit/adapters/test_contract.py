import gc

import pytest

from byzerllm_adapters.contract import ChatStream, answer_stream
from byzerllm_adapters.errors import ByzerError


def test_every_accepted_answer_becomes_pairs_of_text_and_facts():
    pairs = [("Hel", {}), ("Hello", {"n": 2})]
    assert list(answer_stream("Hello")) == [("Hello", {})]
    assert list(answer_stream(pairs)) == pairs
    assert list(answer_stream(pair for pair in pairs)) == pairs
    assert list(answer_stream(ChatStream(iter(pairs), lambda: None))) == pairs
    assert list(answer_stream([("Hello", "")])) == [("Hello", {})]  # what the original's adapters return
    assert list(answer_stream(["Hel", ("Hello", None)])) == [("Hel", {}), ("Hello", {})]


@pytest.mark.parametrize("result", [3, None, {"a": 1}, b"x", [3], [("a", 3)], [("a", {}, 1)]])
def test_what_is_no_answer_is_refused_by_its_type(result):
    with pytest.raises(ByzerError, match="stream_chat returned a"):
        list(answer_stream(result))


def test_no_answer_at_all_is_refused():
    with pytest.raises(ByzerError, match="no answer"):
        list(answer_stream([]))


def test_who_stops_reading_closes_the_source():
    closed = []

    def source():
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    answers = answer_stream(source())
    assert next(answers) == ("a", {})
    answers.close()
    assert closed == [True]


def test_a_stream_prints_as_the_answer_from_wherever_it_is_read():
    stream = ChatStream(iter([("a", {}), ("ab", {}), ("abc", {})]), lambda: None)
    next(stream)
    assert str(stream) == "abc"
    assert f"{stream}" == "abc"
    assert list(stream) == []


def test_a_stream_is_cancelled_by_close_by_leaving_its_block_and_when_nobody_holds_it():
    cancelled = []
    stream = ChatStream(iter([]), lambda: cancelled.append("x"))
    stream.close()
    assert len(cancelled) == 1
    with stream:
        pass
    assert len(cancelled) == 2
    del stream
    gc.collect()
    assert len(cancelled) == 3
