"""What becomes of the rows."""

import pyarrow as pa

from byzerllm_trainers import recipe
from tests.unit.trainers.arguments.bench import Bench, case


@case("on_bad_row")
def _(bench: Bench) -> None:
    """`test_bad_rows.py` has what happens without."""
    for method, columns in (
        ("sft", {"instruction": ["a", "b"], "output": ["A", None]}),
        ("sfft", {"text": ["a", None]}),
        ("dpo", {"prompt": ["a", "b"], "chosen": ["A", "B"], "rejected": ["C", None]}),
    ):
        counts = recipe.find(method).prepare(bench.make_job(method, pa.table(columns), on_bad_row="drop"))
        assert counts["rows_dropped"] == 1


@case("user_role", "assistant_role")
def _(bench: Bench) -> None:
    for method in ("sft", "dpo"):
        tokenizer = recipe.find(method).tokenizer(bench.job(method, user_role="Human", assistant_role="Bot"))
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": "q"}], tokenize=False, add_generation_prompt=True
        )
        assert asked == "<s>Human: q\nBot:"
