"""From a line to a subcommand, and from any error to a few lines."""

from pathlib import Path
from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.magics import SUBCOMMANDS
from byzerllm_magics.session import Session


def test_alone_it_lists_every_subcommand(run: Any) -> None:
    ran = run("%byzerllm")
    assert ran.error is None
    for name, purpose in SUBCOMMANDS.items():
        assert f"%byzerllm {name}" in ran.text
        assert purpose in ran.text
    assert "%llm_chat" in ran.text
    assert "Running jobs" not in ran.text


@pytest.mark.parametrize("name", SUBCOMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_subcommand_has_help(run: Any, name: str, flag: str) -> None:
    ran = run(f"%byzerllm {name} {flag}")
    assert ran.error is None
    assert f"%byzerllm {name}" in ran.lines[0]
    assert SUBCOMMANDS[name] in ran.text


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_subcommand_is_one_module_of_its_name(name: str) -> None:
    import importlib

    module = importlib.import_module(f"byzerllm_magics.magics.{name}")
    assert module.parser().prog.endswith(f"byzerllm {name}")
    assert callable(module.call)


def shown(run: Any, cell: str) -> list[str]:
    """The lines of the error that the cell shows."""
    ran = run(cell)
    assert isinstance(ran.error, ByzerError), ran.error
    assert "Traceback" not in ran.text
    assert len(ran.lines) <= 5
    assert ran.lines[0].startswith(f"{type(ran.error).__name__}: ")
    return ran.lines


def test_an_unknown_subcommand_names_the_nearest(run: Any) -> None:
    lines = shown(run, "%byzerllm atach job")
    assert lines[0] == "ByzerError: %byzerllm has no subcommand 'atach'"
    assert lines[1].startswith("→ did you mean 'attach'? there are: setup, run")
    assert shown(run, "%byzerllm qqqq")[1].startswith("→ there are: ")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("%byzerllm attach", "the following arguments are required: job"),
        ("%byzerllm jobs everything", "no job 'everything'"),
        ("%byzerllm logs job --rank first", "argument --rank: invalid int value: 'first'"),
        ("%byzerllm params bananas", "no parameter has"),
        ("%byzerllm attach 'job", "no closing quotation"),
        ("%byzerllm run", "needs a cell"),
        ("%byzerllm attach nobody", "no job 'nobody'"),
        ("%byzerllm wait nobody", "no job 'nobody'"),
        ("%byzerllm logs nobody", "no job 'nobody'"),
        ("%%byzerllm jobs\nsft-demo", "%byzerllm jobs takes no cell"),
        ('%%byzerllm run -o my-model\naction="infer"', "-o my-model: no Python variable can be named so"),
        ("%llm_chat -o class hello", "-o class: no Python variable can be named so"),
    ],
)
def test_a_wrong_line_is_told_in_a_few_lines(run: Any, line: str, what: str) -> None:
    assert what in shown(run, line)[0]


def test_the_error_stops_run_all_and_keeps_its_name(run: Any) -> None:
    error = run("%byzerllm nothing").error
    assert type(error).__name__ == "ByzerError"
    assert isinstance(error, ValueError)


def broken(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def jobs(_session: Session) -> None:
        raise error

    monkeypatch.setattr(Session, "jobs", jobs)


def test_what_nobody_expected_becomes_a_few_lines_and_a_log(
    run: Any, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, KeyError("x\n" * 50))
    lines = shown(run, "%byzerllm jobs")
    assert lines[0].startswith("ByzerError: unexpected KeyError: ")
    assert "test_dispatch.py, line " in lines[1]
    log = own_state / "last-error.log"
    assert str(log) in lines[2]
    assert "Traceback (most recent call last)" in log.read_text()


def test_an_error_without_a_message_is_told_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, AssertionError())
    assert shown(run, "%byzerllm jobs")[0] == "ByzerError: unexpected AssertionError: no message"


def test_an_interrupt_is_told_in_two_lines(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, KeyboardInterrupt())
    lines = shown(run, "%byzerllm jobs")
    assert lines[0] == "ByzerError: interrupted"
    assert "goes on" in lines[1]


def test_params_prints_the_keys(run: Any) -> None:
    assert "learning_rate" in run("%byzerllm params sft").text
    every = run("%byzerllm params").text
    for group in ("setup", "infer", "train", "sft", "sfft", "dpo"):
        assert f"{group}\nkey" in every
