"""A bare `%%byzerllm`: checked as a whole, run in order, tables under their names, models in SQL."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.jobs import Job
from byzerllm_magics.session import Session
from byzerllm_magics.tables import Table


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.txt").write_text("one\ntwo")
    (folder / "b.txt").write_text("三")
    return folder


def test_files_become_a_table_a_query_another_and_the_last_one_shows(run: Any, shell: Any, files: Path) -> None:
    ran = run(
        f"""%%byzerllm
load text.`file://{files}/*` where wholetext="true" as trainData;
-- names as in Spark
select value as text, file from trainData
  as newTrainData;
run newTrainData as TableRepartition.`` where partitionNum="2" and partitionCols="file" as finalTrainData;
"""
    )
    assert ran.error is None, ran.text
    assert isinstance(ran.value, Table)
    assert ran.value.partitions == 2
    assert sorted(ran.value.df().text) == ["one\ntwo", "三"]
    assert shell.user_ns["finalTrainData"] is ran.value
    assert list(shell.user_ns["newTrainData"].df().columns) == ["text", "file"]


def test_a_dataframe_is_a_table_and_a_users_variable_is_never_overwritten(run: Any, shell: Any) -> None:
    shell.user_ns["rows"] = pd.DataFrame({"a": [1, 2]})
    shell.user_ns["mine"] = mine = "a text"
    ran = run("%%byzerllm\nselect a + 1 as b from rows as mine;\nselect b from mine where b > 2 as other;")
    assert ran.error is None, ran.text
    assert ran.value.df().b.tolist() == [3]
    assert shell.user_ns["mine"] is mine
    assert "variable mine is yours" in ran.text
    run("%%byzerllm\nselect 7 as b as other;")
    assert shell.user_ns["other"].df().b.tolist() == [7], "what we bound, we bind again"


def test_a_dataframe_in_place_of_our_table_is_the_table_of_that_name(run: Any, shell: Any) -> None:
    run("%%byzerllm\nselect 1 as a as t;")
    shell.user_ns["t"] = shell.user_ns["t"].df().assign(a=5)
    assert run("%%byzerllm\nselect a from t").value.df().a.tolist() == [5]


def test_names_stand_inside_texts_only_and_are_not_read_again(run: Any, shell: Any) -> None:
    shell.user_ns["word"] = "it's ${other}; drop"
    ran = run("%%byzerllm\nset other = 'x';\nselect '<${word}>' as a, \"${other}\" as b")
    assert ran.value.df().iloc[0].tolist() == ["<it's ${other}; drop>", "x"]


def test_all_problems_of_a_script_come_before_anything_runs(run: Any, shell: Any) -> None:
    ran = run(
        """%%byzerllm
select 1 as a as t;
load txt.`nowhere` as u;
select a frm t as v;
select a from nothing as w;
run t as TableRepartition.`` where partitionNum="many" as x;
!byzerllm setup "num_gpus=${undefined}";
"""
    )
    assert isinstance(ran.error, ByzerError)
    assert ran.lines[0] == "LanguageError: 5 problems"
    assert len(ran.lines) == 1 + 3 * 5, "each has a place, its line and a caret"
    for named in (
        "line 3, column 6: load cannot read 'txt'",
        "line 4",
        "no table nothing",
        "partitionNum",
        "undefined",
    ):
        assert named in ran.text, ran.text
    assert any("^^^" in line for line in ran.lines)
    assert "t" not in shell.user_ns


def test_a_statement_that_fails_is_named_and_those_before_it_have_taken_effect(run: Any, shell: Any) -> None:
    ran = run("%%byzerllm\nselect 1 as a as t;\nload csv.`nowhere/*.csv` as u;\nselect 2 as a as v;")
    assert isinstance(ran.error, ByzerError)
    assert "statement 2 of 3, line 3: load csv.`nowhere/*.csv` as u" in ran.text
    assert len(ran.lines) <= 5
    assert "t" in shell.user_ns
    assert "v" not in shell.user_ns


def test_an_error_inside_a_query_is_shown_at_its_place(run: Any, shell: Any) -> None:
    shell.user_ns["rows"] = pd.DataFrame({"amount": [1]})
    ran = run("%%byzerllm\nselect 1 as a as t;\nselect amonut\n  from rows as u;")
    assert "line 3, column 8" in ran.text
    assert "amount" in ran.lines[-1]
    assert any("^^^^^^" in line for line in ran.lines)


def test_a_documents_slips_are_tolerated_with_a_note(run: Any) -> None:
    ran = run('%%byzerllm\nselect concat("a"， "b",) as x as t;')
    assert ran.value.df().x.tolist() == ["ab"]
    assert "line 2" in ran.text
    assert "，" in ran.text


def test_models_are_called_from_sql(run: Any, shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def answer_all(model: Any, requests: Sequence[Mapping[str, Any]], progress: Any) -> list[dict[str, Any]]:
        seen.extend(requests)
        progress(len(requests))
        return [
            {"error": "too hard"}
            if request["instruction"] == "b"
            else {"text": request["instruction"] * 2, "extra": {}}
            for request in requests
        ]

    monkeypatch.setattr(Session, "own_models", lambda _: ["chat"])
    monkeypatch.setattr(Session, "model", lambda _self, name=None: name)
    monkeypatch.setattr("byzerllm_magics.cluster.answers.answer_all", answer_all)
    shell.user_ns["questions"] = pd.DataFrame({"q": ["a", "b", "c"]})
    ran = run(
        "%%byzerllm\n"
        'select q, llm_result(chat(llm_param(map("instruction", q)))) as answer from questions as t;\n'
        "select q, answer, llm_error(answer) as why from t as u;\n"
    )
    assert ran.error is None, ran.text
    assert ran.value.arrow().column("answer").to_pylist() == ["aa", None, "cc"]
    assert ran.value.arrow().column("why").to_pylist() == [None, "too hard", None]
    assert "1 of 3 calls failed" in ran.text
    assert list(shell.user_ns["t"].df().columns) == ["q", "answer"], "the errors are hidden"
    assert len(seen) == 3


def test_a_script_of_settings_shows_the_card(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.magics.test_cells import INFO

    monkeypatch.setattr(Session, "connect", lambda _self, **_: INFO)
    ran = run('%%byzerllm\n!byzerllm setup sfft;\n!byzerllm setup "num_gpus=2";')
    assert "num_gpus=2" in repr(ran.value)


def test_secret_variables_never_show_in_an_error(run: Any, shell: Any) -> None:
    shell.user_ns["sec_token"] = "sk-PYTHON77"
    for cell in (
        '%%byzerllm\nset my_password="hunter-22";\nload csv.`${my_password}/*.csv` as t;',
        "%%byzerllm\nload csv.`${sec_token}.csv` as t;",
        '%%byzerllm run\naction="infer" and localModelDir="models/${sec_token}" and udfName="x"',
    ):
        ran = run(cell)
        assert isinstance(ran.error, ByzerError)
        assert "***" in ran.text
        assert "hunter-22" not in ran.text
        assert "sk-PYTHON77" not in ran.text


def test_a_variable_that_is_assigned_anew_is_the_newer_table(run: Any, shell: Any) -> None:
    shell.user_ns["mine"] = pd.DataFrame({"k": [1]})
    assert "is yours" in run("%%byzerllm\nselect 5 as k as mine;").text
    assert run("%%byzerllm\nselect k from mine as t;").value.df().k.tolist() == [5]
    shell.user_ns["mine"] = pd.DataFrame({"k": [7]})
    assert run("%%byzerllm\nselect k from mine as t;").value.df().k.tolist() == [7]


def test_an_unseen_mark_at_the_beginning_of_a_pasted_cell_does_no_harm(run: Any) -> None:
    assert run("%%byzerllm\n\ufeffselect 1 as a as t;").value.df().a.tolist() == [1]


class Trained(Job):
    """A job that is interrupted while it is waited for, or has ended."""

    def __init__(self, interrupted: bool) -> None:
        self.detached, self._interrupted = False, interrupted

    name = "trained"

    def wait(self, on_look: Any = None, tell: Any = None) -> dict[str, Any]:
        if self._interrupted:
            raise KeyboardInterrupt
        return {
            "name": "trained",
            "status": "finished",
            "steps": 3,
            "seconds": 1.0,
            "last_loss": None,
            "model": None,
            "folder": "/nowhere",
        }


@pytest.fixture
def trains(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the training statement give a job that was made before."""
    monkeypatch.setattr("byzerllm_magics.live.JobView.__init__", lambda *_: None)
    monkeypatch.setattr("byzerllm_magics.live.JobView.show", lambda _: None)

    def with_job(job: Trained) -> None:
        monkeypatch.setattr(Session, "run", lambda *_args, **_more: job)

    return with_job


TRAIN = 'run command as LLM.`` where pretrainedModelType="sft/llama" and localModelDir="m" and localDataDir="d"'


def test_an_interrupted_wait_ends_the_script(run: Any, shell: Any, trains: Any) -> None:
    trains(Trained(interrupted=True))
    ran = run(f"%%byzerllm\nselect 1 as a as t;\n{TRAIN};\nselect 2 as a as never;")
    assert isinstance(ran.error, ByzerError)
    assert "the statements after this one are not run" in ran.text
    assert "attach trained" in ran.text
    assert "t" in shell.user_ns
    assert "never" not in shell.user_ns


def test_a_jobs_table_is_a_variable(run: Any, shell: Any, trains: Any) -> None:
    trains(Trained(interrupted=False))
    ran = run(f'%%byzerllm\n{TRAIN} and outputTable="result";')
    assert ran.error is None, ran.text
    assert shell.user_ns["result"].df().steps.tolist() == [3]
    shell.user_ns["kept"] = 7
    assert "is yours" in run(f'%%byzerllm run\n{TRAIN.partition("where ")[2]} and outputTable="kept"').text
    assert shell.user_ns["kept"] == 7


@pytest.mark.parametrize("name", ["print", "list", "None", "class"])
def test_a_table_is_never_bound_over_a_name_of_pythons(run: Any, shell: Any, name: str) -> None:
    ran = run(f"%%byzerllm\nselect 1 as a as {name};")
    assert ran.error is None, ran.text
    assert name not in shell.user_ns
    assert f"the table is session table {name!r} in SQL" in ran.text
    assert run(f"%%byzerllm\nselect a from {name} as t;").value.df().a.tolist() == [1]


def test_all_problems_of_settings_alone_are_told_at_once(run: Any) -> None:
    ran = run('%%byzerllm\n!byzerllm setup "num_gpu=2";\n!byzerllm setup sfftt;')
    assert ran.lines[0] == "LanguageError: 2 problems"
    assert "did you mean num_gpus?" in ran.text
    assert "did you mean sfft?" in ran.text


def test_a_table_and_a_folder_that_are_not_there_are_told_beside_a_wrong_key(run: Any) -> None:
    keys = 'pretrainedModelType="sft/llama" and localModelDir="modell" and inputTable="nothing" and nam="x"'
    for cell in (f"%%byzerllm\nrun command as LLM.`` where {keys};", f"%%byzerllm run\n{keys}"):
        ran = run(cell)
        assert ran.lines[0] == "LanguageError: 3 problems"
        for named in ('no folder "modell"', "there is no table nothing", "did you mean name?"):
            assert named in ran.text


def test_a_folder_that_an_earlier_statement_may_make_is_not_missed(run: Any) -> None:
    keys = 'action="infer" and localModelDir="jobs/a/model" and udfNam="x"'
    ran = run(f"%%byzerllm\n{TRAIN};\nrun command as LLM.`` where {keys};")
    assert "no folder" not in ran.text


@pytest.mark.parametrize(
    ("statement", "what", "column"),
    [
        (
            'run command as LLM.`` where action="infer" and pretrainedModelType="llma" and udfName="x"'
            ' and localModelDir="m"',
            "there is no adapter for",
            68,
        ),
        ('run command as LLM.`` where action="infer" and localModelDir="modell" and udfName="x"', "no folder", 62),
        (
            'run command as LLM.`` where pretrainedModelType="sft/llama" and localModelDir="{model}"'
            ' and inputTable="strange"',
            "no data format has the columns id, q, g",
            None,
        ),
        ('run strange as TableRepartition.`` where partitionCols="idd" as u', "no column 'idd'", 56),
    ],
)
def test_what_is_wrong_with_a_keys_value_is_shown_at_its_place(
    run: Any,
    shell: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    what: str,
    column: int | None,
) -> None:
    monkeypatch.setattr(Session, "connect", lambda _self, **_: None)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    shell.user_ns["strange"] = pd.DataFrame({"id": [1], "q": ["a"], "g": ["b"]})
    statement = statement.replace("{model}", str(tmp_path))
    cells = [f"%%byzerllm\n{statement};", f"%%byzerllm\nselect 1 as a as t;\n{statement};"]
    if "LLM" in statement:
        cells.append(f"%%byzerllm run\n{statement}")
    for cell in cells:
        ran = run(cell)
        assert what in ran.text
        assert ran.lines[1].startswith(f"line {cell.count(chr(10)) + 1}, column ")
        assert column is None or f", column {column}:" in ran.lines[1]
        assert any("^^^" in line for line in ran.lines)
        assert len(ran.lines) <= 5


def test_a_list_cannot_be_put_into_a_value(run: Any, shell: Any) -> None:
    shell.user_ns["lst"] = [1]
    for cell in ("%%byzerllm\nload csv.`${lst}` as t;", '%%byzerllm run\nlocalModelDir="${lst}"'):
        assert "${lst} is a list; only text and numbers can be put into a value" in run(cell).lines[0]


def test_a_number_of_numpys_is_a_number(run: Any, shell: Any) -> None:
    shell.user_ns["n"] = pd.Series([3]).max()
    assert run("%%byzerllm\nselect '${n}' as a as t;").value.df().a.tolist() == ["3"]


def test_a_script_has_no_options_and_says_where_its_result_is(run: Any) -> None:
    ran = run("%%byzerllm -o foo\nselect 1 as a as t;")
    assert "its result is its last value" in ran.lines[0]
    assert "NAME = _" in ran.lines[1]


def test_a_mistyped_secret_key_is_named_without_its_value(run: Any) -> None:
    ran = run('%%byzerllm run\naction="infer" and localModelDir="m" and udfName="x" and saas.api_kee="sk-SECRET-9"')
    assert "did you mean saas.api_key?" in ran.text
    assert "SECRET" not in ran.text
