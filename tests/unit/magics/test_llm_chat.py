"""Talking to a model: the text is literal, the answer streams, what arrived is kept."""

from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.magics.llm_chat import HELP, split_options
from tests.unit.magics.fakes import FakeModel

LITERAL = [
    "What is {x} and {{y}} and {1+1}?",
    "It costs $5, or $x, or $HOME, or ${name}.",
    "She said \"it's\" and 'no' and `why`",
    r"C:\new\table, \n is not a newline, \\server",
    "a -- b --new -m other -o x",
    "100 % sure, %s, %d %byzerllm",
    "你好，世界！-- 为什么？",
    "? really ?? !ls",
    "x = 1; y = 2 # not a comment",
    "What is the capital of France?",
    "Really, print?? is it",
    "sure??",
    "What's this?",
    "f(x)?",
    "%time?",
    '{"key": "value"}',
]


@pytest.mark.parametrize("text", LITERAL)
def test_a_prompt_reaches_the_model_as_it_stands(run: Any, shell: Any, model: FakeModel, text: str) -> None:
    shell.user_ns.update(x="WRONG", name="WRONG")
    for cell in (f"%llm_chat -m chat {text}", f"%%llm_chat -m chat\n{text}"):
        ran = run(cell)
        assert ran.error is None, ran.text
        assert model.requests[-1]["instruction"] == text


def test_a_question_in_a_block_is_one_too(run: Any, model: FakeModel) -> None:
    run("for word in ['red']:\n    %llm_chat What is it?\n    %llm_chat And then, print?\n")
    assert [request["instruction"] for request in model.requests] == ["What is it?", "And then, print?"]


def test_ipythons_own_help_is_still_there(run: Any, shell: Any, model: FakeModel) -> None:
    assert "Talk to a deployed model" in run("%llm_chat?").text
    assert "Deploy, fine-tune and pretrain" in run("%byzerllm?").text
    shell.user_ns["red"] = 7
    assert "int" in run("red?").text
    assert run("text = '''\n%llm_chat What?\n'''\ntext").value == "\n%llm_chat What?\n"
    assert model.requests == []


def test_after_unloading_ipython_reads_lines_as_before(shell: Any) -> None:
    manager = shell.input_transformer_manager
    shell.run_line_magic("unload_ext", "byzerllm_magics")
    assert manager.transform_cell("%llm_chat France?") == "get_ipython().run_line_magic('pinfo', 'France')\n"
    shell.run_line_magic("load_ext", "byzerllm_magics")
    assert manager.transform_cell("%llm_chat F?") == "get_ipython().run_line_magic('llm_chat', 'F?')\n"


def test_a_cells_body_keeps_its_lines(run: Any, model: FakeModel) -> None:
    body = "def f(x):\n    return {x: $y}\n\n\t%time -- it"
    run(f"%%llm_chat\n{body}\n")
    assert model.requests[-1]["instruction"] == body


def test_text_on_the_line_comes_before_that_of_the_cell(run: Any, model: FakeModel) -> None:
    run("%%llm_chat --new Explain this:\nx = 1\n")
    assert model.requests[-1]["instruction"] == "Explain this:\nx = 1"


@pytest.mark.parametrize(
    ("line", "options", "text"),
    [
        ("hello", {}, "hello"),
        ("-m chat hello", {"model": "chat"}, "hello"),
        ("--model=chat hello", {"model": "chat"}, "hello"),
        ("--model 'my chat' hello", {"model": "my chat"}, "hello"),
        ('--system "Be brief; it\'s late." hello', {"system": "Be brief; it's late."}, "hello"),
        ("--temperature 0 --max-tokens 8 hello", {"temperature": 0.0, "max_tokens": 8}, "hello"),
        ("--new -o answer hello", {"new": True, "output": "answer"}, "hello"),
        ("--new", {"new": True}, ""),
        ("-- -m is an option", {}, "-m is an option"),
        ("-m chat -- --new is one, too", {"model": "chat"}, "--new is one, too"),
        ("-5 is a number", {}, "-5 is a number"),
        ("— a dash", {}, "— a dash"),
        ("hello -m chat", {}, "hello -m chat"),
        ("  ", {}, ""),
        ("--help", {"help": True}, ""),
    ],
)
def test_options_stand_in_front(line: str, options: dict[str, Any], text: str) -> None:
    found, rest = split_options(line)
    assert rest == text
    unset = {"help": False, "new": False, "model": None, "system": None, "output": None}
    assert vars(found) == unset | {"temperature": None, "max_tokens": None} | options


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("--tempreature 1 hello", "has no option --tempreature"),
        ("-x hello", "has no option -x"),
        ("-m", "-m needs a value"),
        ("--temperature warm hello", "--temperature takes a number, not 'warm'"),
        ("--max-tokens 1.5 hello", "--max-tokens takes a number, not '1.5'"),
    ],
)
def test_a_wrong_option_is_an_error_not_a_prompt(run: Any, model: FakeModel, line: str, what: str) -> None:
    ran = run(f"%llm_chat {line}")
    assert isinstance(ran.error, ByzerError)
    assert what in ran.lines[0]
    assert len(ran.lines) <= 5
    assert model.requests == []


def test_the_answer_is_printed_and_bound(run: Any, shell: Any, model: FakeModel) -> None:
    ran = run("%llm_chat -m chat -o answer What is red?")
    assert ran.lines[0] == "The red stone."
    assert ran.lines[1].startswith("[4 tokens")
    answer = shell.user_ns["answer"]
    assert answer == "The red stone."
    assert (answer.metadata["model"], answer.metadata["generated_tokens_count"]) == ("chat", 4)


def test_a_conversation_goes_on_until_a_new_one(run: Any, model: FakeModel) -> None:
    for line in ("One?", "Two?", "--new Three?", "--system Brief. Four?"):
        run(f"%llm_chat {line}")
    assert [len(request["history"]) for request in model.requests] == [0, 2, 0, 1]
    assert model.requests[3]["history"] == [{"role": "system", "content": "Brief."}]


def test_options_of_the_generation_reach_the_model(run: Any, model: FakeModel) -> None:
    run("%llm_chat --temperature 0 --max-tokens 8 Hello")
    assert model.requests[0]["temperature"] == 0.0
    assert model.requests[0]["generation.max_new_tokens"] == 8


def test_an_interrupt_keeps_the_partial_answer_and_is_no_error(run: Any, shell: Any, model: FakeModel) -> None:
    model.fails_with = KeyboardInterrupt()
    ran = run("%llm_chat -o answer What is red?")
    assert ran.error is None
    assert ran.lines[0] == "The red"
    assert ran.lines[1].startswith("[stopped")
    assert shell.user_ns["answer"] == "The red"
    model.fails_with = None
    run("%llm_chat And blue?")
    assert [turn["content"] for turn in model.requests[-1]["history"]] == ["What is red?", "The red"]


def test_a_model_that_dies_midway_is_an_error_and_what_arrived_is_kept(run: Any, shell: Any, model: FakeModel) -> None:
    model.fails_with = ByzerError("model 'chat' stopped answering", do="ask again")
    ran = run("%llm_chat -o answer What is red?")
    assert isinstance(ran.error, ByzerError)
    assert "ByzerError: model 'chat' stopped answering" in ran.text
    assert "Traceback" not in ran.text
    assert shell.user_ns["answer"] == "The red"


def test_an_unknown_model_is_an_error_with_the_nearest_name(run: Any, model: FakeModel) -> None:
    ran = run("%llm_chat -m chta Hello")
    assert ran.lines == ["ByzerError: no model 'chta'", "deployed: chat", '→ did you mean "chat"?']


@pytest.mark.parametrize("cell", ["%llm_chat", "%llm_chat --new", "%%llm_chat\n   \n"])
def test_without_a_text_nothing_is_asked(run: Any, model: FakeModel, cell: str) -> None:
    assert "needs a text" in run(cell).lines[0]
    assert model.requests == []


def test_help_is_printed(run: Any, model: FakeModel) -> None:
    assert run("%llm_chat --help").text == HELP + "\n"
    assert run("%llm_chat -m chat -h").error is None
