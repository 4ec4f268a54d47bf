"""Cells that can be read: each form of each statement, and where it was written."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byzerllm_magics.language import (
    ModelCommand,
    RunLLM,
    Setup,
    SetVariable,
    parse_run,
    parse_script,
    parse_setup,
)


def parameters(run):
    return {a.key: a.value for a in run.parameters}


DEPLOY = {"action": "infer", "localModelDir": "models/tiny", "udfName": "chat"}


@pytest.mark.parametrize(
    "body",
    [
        'action="infer" and localModelDir="models/tiny" and udfName="chat"',
        "action=infer\nlocalModelDir=models/tiny\nudfName=chat",
        "action = infer,\nand localModelDir = 'models/tiny' and\n`udfName`=chat;",
        'where and action="infer"\nAND localModelDir="models/tiny"; udfName="chat",',
        'run command as LLM.`` where action="infer" and localModelDir="models/tiny" and udfName="chat";',
        'RUN command AS llm.`` WHERE\nand action="infer"\n-- and x="1"\nAnd `localModelDir`="models/tiny"\n'
        'and udfName="chat" -- 名字\n;',
        "action='''infer''' localModelDir=\"\"\"models/tiny\"\"\" and udfName=chat",
        "action=infer\r\nlocalModelDir=models/tiny\r\nudfName=chat\r\n",
    ],
)
def test_every_form_of_a_run_cell_means_the_same(body):
    assert parameters(parse_run(body)) == DEPLOY


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (r'"a \"b\" \\ \n\t"', 'a "b" \\ \n\t'),
        (r'"C:\models\q"', r"C:\models\q"),
        ("'''raw \\n \"x\" -- no comment;\nnext'''", 'raw \\n "x" -- no comment;\nnext'),
        ('"""it\'s {\n}"""', "it's {\n}"),
        ("'it \"is\"'", 'it "is"'),
        ('"，；（）“”＝"', "，；（）“”＝"),
        ('""', ""),
        ("models--org--name", "models--org--name"),
        ("run", "run"),
        ("${x}", "${x}"),
    ],
)
def test_a_value_means_what_its_quotes_say(written, value):
    (parameter,) = parse_run(f"key={written}").parameters
    assert parameter.value == value


def test_positions_point_at_what_was_written():
    text = '-- 说明\nname="张 三"\n  and `sft.int.max_seq_length`="512"'
    name, length = parse_run(text).parameters
    assert text[name.value_span.start : name.value_span.end] == '"张 三"'
    assert (length.key_span.line, length.key_span.column) == (3, 7)
    assert text[length.key_span.start : length.key_span.end] == "`sft.int.max_seq_length`"
    assert (length.value_span.end_line, length.value_span.end_column) == (3, 37)


@pytest.mark.parametrize(
    "body",
    [
        "single\nnum_gpus=2",
        '!byzerllm setup single;\n!byzerllm setup "num_gpus=2";',
        "!byzerllm setup single\n!byzerllm setup num_gpus=2",
        "single; 'num_gpus=2'",
    ],
)
def test_every_form_of_a_setup_cell_means_the_same(body):
    setup = parse_setup(body)
    assert setup.mode == "single"
    assert body[setup.mode_span.start : setup.mode_span.end] == "single"
    (setting,) = setup.settings
    assert (setting.key, setting.value) == ("num_gpus", "2")
    assert body[setting.key_span.start : setting.key_span.end] == "num_gpus"
    assert body[setting.value_span.start : setting.value_span.end] == "2"


def test_an_empty_setup_changes_nothing():
    setup = parse_setup("  -- nothing\n")
    assert (setup.mode, setup.settings) == (None, ())


def test_a_script_is_its_statements_in_order():
    script = """
    -- 预训练
    set ds='''{"a": 1;}''';
    !byzerllm setup sfft;
    !byzerllm setup "num_gpus=12";
    run command as LLM.`` where
    and pretrainedModelType="sfft/llama2"
    -- and localDataDir="data"
    and deepspeedConfig='''${ds}''' and `sfft.int.max_length`="128"
    ;
    !byzerllm model remove chat; model exists "llama_13b_chat";;
    """
    variable, mode, gpus, run, remove, exists = parse_script(script)
    assert isinstance(variable, SetVariable)
    assert (variable.name, variable.value) == ("ds", '{"a": 1;}')
    assert isinstance(mode, Setup)
    assert mode.mode == "sfft"
    assert gpus.settings[0].value == "12"
    assert isinstance(run, RunLLM)
    assert parameters(run) == {
        "pretrainedModelType": "sfft/llama2",
        "deepspeedConfig": "${ds}",
        "sfft.int.max_length": "128",
    }
    assert script[run.span.start : run.span.end].startswith("run command")
    assert isinstance(remove, ModelCommand)
    assert [(c.verb, c.name) for c in (remove, exists)] == [("remove", "chat"), ("exists", "llama_13b_chat")]


def test_an_empty_script_holds_no_statements():
    assert parse_script(" ;\n-- only a comment\n") == ()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back_from_a_quoted_value(text):
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    (parameter,) = parse_run(f'key="{quoted}"').parameters
    assert parameter.value == text


def test_importing_the_language_imports_nothing_heavy():
    code = (
        "import sys, byzerllm_magics.language, byzerllm_magics.parameters; "
        "print([m for m in ('lark', 'pydantic', 'torch', 'ray', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
