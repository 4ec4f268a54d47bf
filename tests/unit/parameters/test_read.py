"""Raw keys and values -> declared parameters: every notation accepted, every problem named."""

import pickle

import pytest
from pydantic import Field

from byzerllm_adapters.parameters import JsonList, ParameterError, Parameters, describe, read


class Inner(Parameters):
    count: int = Field(1, gt=0, description="How many.", json_schema_extra={"unit": "rows"})
    rate: float = Field(0.5, description="How fast.")
    limit: int | None = Field(None, description="The end.")
    kind: str = Field("a", description="Which.")
    items: JsonList = Field(default_factory=list, description="Several.")


class Outer(Parameters):
    model_dir: str = Field(alias="modelDir", description="A folder.")
    flag: bool = Field(False, description="Yes or no.")
    inner: Inner = Field(default_factory=Inner)


def problems(raw, declaration=Outer):
    with pytest.raises(ParameterError) as caught:
        read(declaration, raw)
    assert len(caught.value.render()) <= 5
    return caught.value.problems


def test_strings_of_a_cell_and_values_of_python_mean_the_same():
    cell = {
        "modelDir": "m",
        "flag": "True",
        "inner.count": "1_000",
        "inner.rate": "2e-4",
        "inner.items": '["a"]',
    }
    python = {"modelDir": "m", "flag": True, "inner": {"count": 1000, "rate": 2e-4, "items": ["a"]}}
    assert read(Outer, cell) == read(Outer, python)


@pytest.mark.parametrize("text", ["true", "TRUE", "True", "1", "yes"])
def test_booleans_are_read_in_any_case(text):
    assert read(Outer, {"modelDir": "m", "flag": text}).flag is True


def test_a_key_may_name_its_type():
    read_ = read(Outer, {"modelDir": "m", "inner.int.count": "3", "inner.float.rate": "1", "inner.str.kind": "b"})
    assert (read_.inner.count, read_.inner.rate, read_.inner.kind) == (3, 1.0, "b")
    assert read(Outer, {"modelDir": "m", "inner.int.rate": "1"}).inner.rate == 1.0


def test_none_may_be_written_where_it_is_a_value():
    assert read(Outer, {"modelDir": "m", "inner.limit": "None"}).inner.limit is None
    assert read(Outer, {"modelDir": "none"}).model_dir == "none"


@pytest.mark.parametrize(
    ("key", "value", "what", "do"),
    [
        ("inner.count", "many", 'inner.count="many" is not a whole number', "write a whole number, e.g. 128"),
        ("inner.count", "1.5", 'inner.count="1.5" is not a whole number', "write a whole number, e.g. 128"),
        ("inner.count", "0", 'inner.count="0" is out of range', "give a value greater than 0 (rows)"),
        ("inner.rate", "nan", 'inner.rate="nan" is not a number', "write a number, e.g. 2e-4"),
        ("flag", "perhaps", 'flag="perhaps" is not true or false', "write true or false"),
        ("inner.items", "[1,", 'inner.items="[1," is not JSON: ', "correct the JSON text"),
        ("inner.items", "{}", 'inner.items="{}" is not a JSON list', 'write a JSON list, e.g. ["a", "b"]'),
        ("Flag", "1", "Flag is not a known parameter", "did you mean flag?"),
        ("inner.int.cuont", "1", "inner.int.cuont is not a known parameter", "did you mean inner.count?"),
        (
            "inner.int.rate",
            "1.5",
            'inner.int.rate="1.5" is not a whole number, and inner.rate is a float',
            "write inner.rate or",
        ),
        ("inner.int.rate", "1e-4", "inner.int.rate=", "write inner.rate or inner.float.rate"),
        ("inner.string.rate", "1", "inner.string.rate: string is no type", "write inner.rate or inner.float.rate"),
        ("MODEL_DIR", "1", "MODEL_DIR is not a known parameter", "did you mean modelDir?"),
        (
            "inner.str.count",
            "1",
            "inner.str.count says str, but inner.count takes a whole number",
            "write inner.count or",
        ),
    ],
)
def test_a_problem_says_what_and_what_to_do(key, value, what, do):
    (problem,) = problems({"modelDir": "m", key: value})
    assert problem.key == key
    assert problem.what.startswith(what)
    assert problem.do.startswith(do)


def test_all_problems_are_found_at_once_in_the_order_of_the_keys():
    found = problems({"flag": "x", "colour": "1", "inner.count": "-1"})
    assert [problem.key for problem in found] == ["flag", "colour", "inner.count", "modelDir"]
    assert found[-1].what == "modelDir is missing"


def test_a_key_given_in_two_spellings_is_an_error():
    (problem,) = problems({"modelDir": "m", "inner.count": "1", "inner.int.count": "2"})
    assert problem.what == "inner.count is given twice, as inner.count and as inner.int.count"


def test_an_error_reads_without_a_cell_and_survives_a_worker():
    with pytest.raises(ParameterError) as caught:
        read(Outer, {"flag": "x", "a1": "1", "a2": "1", "a3": "1", "a4": "1"})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.problems == caught.value.problems
    assert copy.render() == caught.value.render()
    assert len(copy.render()) == 5
    assert copy.render()[-1] == "… and 3 more: a3, a4, modelDir"


def test_a_declaration_describes_its_keys():
    docs = {doc.name: doc for doc in describe(Outer)}
    assert list(docs) == [
        "modelDir",
        "flag",
        *(f"inner.{k}" for k in ("count", "rate", "limit", "kind", "items")),
    ]
    assert (docs["modelDir"].default, docs["flag"].default, docs["inner.limit"].default) == (
        "required",
        "false",
        "none",
    )
    assert (docs["inner.count"].type, docs["inner.count"].unit, docs["inner.items"].type) == (
        "int",
        "rows",
        "list",
    )
    assert docs["inner.count"].doc == "How many."
