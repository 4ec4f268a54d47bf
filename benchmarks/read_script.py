"""`read_script`: reading and checking a script of 200 statements, as a cell does before anything runs.

A third each of settings, of `run command as LLM` with eight keys, and of `select`, after the libraries are loaded.
There is no peer.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import pandas as pd
from measure import Figure

from byzerllm_magics import Session

SMOKE = {"repeats": 2}
STATEMENTS = 200


def measure(work: Path, repeats: int = 15) -> list[Figure]:
    from byzerllm_magics.checking import check
    from byzerllm_magics.language import parse_script

    text = _script()
    session = Session(lambda: {"rows": pd.DataFrame({"a": [1], "b": ["x"]})})
    milliseconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        statements = parse_script(text)
        check(session, statements, text)
        milliseconds.append((time.perf_counter() - begun) * 1000)
        assert len(statements) == STATEMENTS
    return [Figure("read_script", median(milliseconds[1:]), "ms", {"read_and_check": milliseconds}, at_most=100)]


def _script() -> str:
    statements = []
    for number in range(STATEMENTS):
        match number % 3:
            case 0:
                statements.append('!byzerllm setup "num_gpus=2";')
            case 1:
                statements.append(
                    'run command as LLM.`` where pretrainedModelType="sft/llama" and localModelDir="models/tiny"\n'
                    f'and name="job-{number}" and inputTable="rows" and outputTable="out{number}"\n'
                    'and `sft.int.num_train_epochs`="3" and sft.learning_rate="1e-4" and detached="true";'
                )
            case _:
                statements.append(f"select a + {number} as a, concat(b, '!') as b from rows where a > 0 as t{number};")
    return "\n".join(statements)
