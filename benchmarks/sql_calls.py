"""`sql_calls`: how many times as fast a query calls a model for 256 rows as the same calls made one after another.

Both: one replica on the embedded cluster, the same model and number format, the same prompts, likeliest tokens, at
most 32 of an answer. The query dispatches them together, and the replica generates them in padded batches; the peer
is `Session.chat`, one call when the last has ended, which is what a loop in a notebook does.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
from measure import Figure, interleaved, ratio_of_medians
from our_jobs import session
from tiny_model import tiny_model

from byzerllm_magics import Session

SMOKE = {"rows": 8, "rounds": 1}
MODEL = "bench_sql"
ANSWER_TOKENS = 32


def measure(work: Path, rows: int = 256, rounds: int = 3) -> list[Figure]:
    ours = session(workers=1)
    ours.run(action="infer", pretrainedModelType="llama", localModelDir=str(tiny_model(work).model), udfName=MODEL)
    names = sorted(sys.stdlib_module_names)[:rows]
    questions = [f"What is the module {name} for?" for name in names]
    ours.tables["questions"] = pd.DataFrame({"q": questions})
    sides = {"one_by_one": partial(_one_by_one, ours, questions), "sql": partial(_sql, ours, len(questions))}
    seconds = interleaved(sides, rounds)
    return [Figure("sql_calls", ratio_of_medians(seconds["one_by_one"], seconds["sql"]), "ratio", seconds, at_least=3)]


def _one_by_one(ours: Session, questions: list[str]) -> float:
    begun = time.perf_counter()
    for question in questions:
        for _ in ours.chat(question, model=MODEL, new=True, temperature=0, max_tokens=ANSWER_TOKENS):
            pass
    return time.perf_counter() - begun


def _sql(ours: Session, rows: int) -> float:
    request = f'map("instruction", q, "temperature", 0, "generation.max_new_tokens", {ANSWER_TOKENS})'
    begun = time.perf_counter()
    table = ours.select(f"select llm_result({MODEL}(llm_param({request}))) as answer from questions")
    seconds = time.perf_counter() - begun
    assert table.arrow().column("answer").null_count == 0
    assert table.num_rows == rows
    return seconds
