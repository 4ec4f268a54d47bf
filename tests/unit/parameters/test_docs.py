"""What is made from the declarations: the reference page, the search in a notebook, what completion offers."""

import dataclasses
import re
from pathlib import Path

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.language import Select, parse_script
from byzerllm_magics.language.forms import FORMS
from byzerllm_magics.parameters import GROUPS, keys_of, search_text
from byzerllm_magics.parameters.__main__ import with_statements
from byzerllm_magics.parameters.help import reference_page
from byzerllm_magics.tables.select import parse_query
from byzerllm_trainers.train_parameters import methods

PAGE = Path(__file__).parents[3] / "docs" / "parameters.md"


def test_the_reference_page_is_the_one_that_the_declarations_make():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "make docs"


def test_the_readmes_table_of_statements_is_the_one_that_the_forms_make():
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    assert readme == with_statements(readme), "make docs"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.begins)
def test_every_statement_of_that_table_can_be_read(form):
    assert len(parse_script(form.example)) == 1


def test_the_page_has_a_row_for_every_key():
    for group in GROUPS:
        for key in keys_of(group):
            assert f"| `{key.name}` |" in reference_page()


def test_completion_gets_spellings_values_and_a_line_of_text():
    keys = {key.name: key for group in GROUPS for key in keys_of(group)}
    rank, schedule, bf16 = (keys[f"sft.{name}"] for name in ("lora_rank", "lr_scheduler_type", "bf16"))
    assert (rank.typed, rank.type, rank.default, rank.values) == ("sft.int.lora_rank", "int", "16", ())
    assert schedule.typed == "sft.str.lr_scheduler_type"
    assert schedule.values[:2] == ("cosine", "linear")
    assert (bf16.typed, bf16.values) == ("sft.bool.bf16", ("true", "false"))
    assert keys["udfName"].typed == "udfName"
    assert keys["infer.load_in_4bit"].typed == "infer.bool.load_in_4bit"
    assert keys["backend.NAME"].typed == "backend.NAME"
    assert "Ray gives each replica its GPUs" in keys["devices"].note
    assert all(key.doc for key in keys.values())


def listed(text):
    """The keys of printed tables, by group."""
    tables = [table.splitlines() for table in text.split("\n\n")]
    return {group: [row.split()[0] for row in rows] for group, _, _, *rows in tables}


def test_a_search_finds_words_in_names_values_and_meanings():
    found = {
        "sft": ["sft.finetuning_type", "sft.lora_rank", "sft.lora_alpha", "sft.lora_dropout", "sft.target_modules"]
    }
    assert listed(search_text(["sft", "lora"])) == found
    assert listed(search_text(["LEARNING"])) == {
        group: [f"{group}.learning_rate", f"{group}.lr_scheduler_type"] for group in methods()
    }
    assert listed(search_text(["sfft", "adafactor"])) == {"sfft": ["sfft.optim"]}
    assert listed(search_text(["checkpoint", "every"])).keys() == methods().keys()
    assert list(listed(search_text([]))) == list(GROUPS)
    assert list(listed(search_text(["setup"]))) == ["setup"]


@pytest.mark.parametrize(
    ("words", "do"), [(["setpu"], "did you mean setup?"), (["sft", "xyzzy"], '"%byzerllm params" lists all of them')]
)
def test_a_search_without_a_result_says_so(words, do):
    with pytest.raises(ByzerError, match="no parameter has") as caught:
        search_text(words)
    assert caught.value.do == do


@pytest.mark.parametrize("declaration", methods().values())
def test_every_field_of_trainingarguments_is_honoured_or_refused_by_name(declaration):
    from transformers import Seq2SeqTrainingArguments

    spellings = {key.name.partition(".")[2] for group in methods() for key in keys_of(group)}
    fields = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    assert fields - spellings - set(declaration.refused) - {"num_train_epochs"} == set()


@pytest.mark.parametrize("declaration", methods().values())
def test_nothing_is_both_honoured_and_refused(declaration):
    assert not set(declaration.model_fields) & set(declaration.refused)
    for name, instead in declaration.refused.items():
        assert instead.startswith(("write ", "leave it out: ")), name
        assert len(instead) <= 100, name


def test_what_a_refusal_names_exists():
    """An advice to write a key that is unknown would lead in a circle."""
    known = {key.name.rpartition(".")[2] for group in GROUPS for key in keys_of(group)}
    for declaration in methods().values():
        for name, instead in declaration.refused.items():
            word = instead.removeprefix("write ").split()[0].strip(",:;")
            if instead.startswith("write ") and word.isidentifier() and word not in ("another",):
                assert word in known | {"epoches"}, name


def test_every_example_of_the_language_page_is_read() -> None:
    page = PAGE.with_name("language.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    statements = [statement for block in blocks for statement in parse_script(block)]
    assert len(statements) >= 10
    for statement in statements:
        if isinstance(statement, Select):
            parse_query(statement.sql, {}.get)
