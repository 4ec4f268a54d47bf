"""The statements of the language as help, completion and the README show them."""

from __future__ import annotations

from dataclasses import dataclass

from byzerllm_adapters.registry import METHODS


@dataclass(frozen=True)
class Form:
    """One statement.

    Attributes:
        begins: What completion offers for it.
        example: One that could stand in a cell.
        meaning: What it does, one line.
    """

    begins: str
    example: str
    meaning: str


_MODES = ", ".join(f"`{mode}`" for mode in ("single", *METHODS))

FORMS = (
    Form(
        "!byzerllm setup",
        '!byzerllm setup "num_gpus=2";',
        f"a setting for this session; a mode ({_MODES}) resets them all",
    ),
    Form("set", "set topic = '''tea''';", "`${topic}` in later values and SQL texts"),
    Form(
        "load",
        'load csv.`data/*.csv` where header="true" as rows;',
        "files as a table: text, json, csv, parquet; a path, a glob, `s3://`",
    ),
    Form(
        "select",
        'select q, llm_result(chat(llm_param(map("instruction", q)))) as a from rows as answers;',
        "SQL in Spark's dialect; a deployed model is a function",
    ),
    Form(
        "run", 'run rows as TableRepartition.`` where partitionNum="8" as parts;', "the same rows in other partitions"
    ),
    Form(
        "run command as LLM.`` where",
        'run command as LLM.`` where action="infer" and localModelDir="m" and udfName="chat";',
        "deploy, train, merge, convert or evaluate, as the keys say",
    ),
    Form("!byzerllm model remove", "!byzerllm model remove chat;", "undeploy"),
    Form("!byzerllm model exists", "!byzerllm model exists chat;", "whether a model is deployed"),
)
"""A new statement is a line here, a rule in `language.lark` and a case in `script`."""


def markdown() -> str:
    """Return the statements as a table for the README."""
    rows = [f"| {_code(form.example)} | {form.meaning} |" for form in FORMS]
    return "\n".join(["| statement | meaning |", "|---|---|", *rows])


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"
