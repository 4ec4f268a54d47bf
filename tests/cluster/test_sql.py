"""Deployed models called from SQL: the answers of a chat, all rows together, failing rows told, interruptible."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

from tests.cluster.kernels import Kernel

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

REQUEST = 'llm_param(map("instruction", q, "temperature", 0, "generation.max_new_tokens", 4))'


@pytest.fixture(scope="module")
def questions(session: Any) -> list[str]:
    words = [f"Recite {'on ' * (i % 7)}from {letter}" for i, letter in enumerate("abcdefghij" * 4)]
    session.tables["questions"] = pd.DataFrame({"id": range(len(words)), "q": words})
    return words


def test_answers_are_those_of_a_chat_in_the_order_of_the_rows(session: Any, reciter: str, questions: list[str]) -> None:
    told: list[str] = []
    sql = f"select id, llm_result({reciter}({REQUEST})) as answer from questions order by id desc"
    table = session.select(sql, progress=told.append).df()
    assert table.id.tolist() == list(range(len(questions)))[::-1]
    assert table.answer.notna().all()
    for row in (0, 13, 39):
        chat = session.chat(questions[table.id[row]], model=reciter, new=True, temperature=0, max_tokens=4)
        assert table.answer[row] == "".join(chat)
    assert told[-1] == f"{reciter}: 40 of 40 calls answered"


def test_a_row_that_fails_is_null_and_says_why(
    session: Any, reciter: str, questions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sql = f"""select id, llm_result({reciter}(llm_param(map(
                "instruction", if(id = 2, repeat('long ', 9000), q), "temperature", 0,
                "generation.max_new_tokens", 3)))) as answer from questions where id < 4 order by id"""
    session.select(sql, "answers")
    found = session.select("select answer, llm_error(answer) as why from answers").arrow()
    assert [answer is None for answer in found.column("answer").to_pylist()] == [False, False, True, False]
    assert "tokens" in found.column("why").to_pylist()[2]
    assert "1 of 4 calls failed" in capsys.readouterr().out


@pytest.fixture(scope="module")
def kernel(session: Any) -> Iterator[Kernel]:
    kernel = Kernel()
    try:
        kernel.run("%load_ext byzerllm_magics\nimport pandas as pd\nrows = pd.DataFrame({'q': ['x'] * 60})")
        kernel.run("%%byzerllm setup\nowner=tester")
        yield kernel
    finally:
        kernel.close()


def test_an_interrupt_ends_the_calls_and_frees_the_model(kernel: Kernel, session: Any, reciter: str) -> None:
    begun = time.monotonic()
    code = f'%%byzerllm\nselect {reciter}(llm_param(map("instruction", q, "temperature", 0))) as a from rows as answers'
    cell = kernel.run(code, interrupt_when=lambda _: time.monotonic() - begun > 4, seconds=60)
    assert cell.status == "error"
    assert "interrupted" in "\n".join(cell.traceback)
    assert cell.seconds < 15, "the alphabet to the end of the context, 60 times, takes minutes"
    interrupted = time.monotonic()
    assert len("".join(session.chat("Again.", model=reciter, new=True, temperature=0, max_tokens=4))) == 4
    assert time.monotonic() - interrupted < 10
