"""Merge, convert and evaluate from a session: names become models, tables and functions; Ray is played by a loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import connection, deployments, jobs, tasks
from byzerllm_magics.evaluation import Evaluation
from byzerllm_magics.session import Session
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest
from tests.tiny import instructions
from tests.unit.trainers.helpers import load

NAMES = {"rows": instructions(4), "number": 7}


@pytest.fixture
def session(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose tasks run in this process."""

    def here(works: Any, _takes: object, tell: Callable[[str], None]) -> list[Any]:
        results: list[Any] = []
        for name, work in works:
            try:
                for item in work():
                    if isinstance(item, str):
                        tell(f"{name}: {item}")
                results.append(item)
            except ByzerError as error:
                results.append(error)
        return results

    monkeypatch.setattr(tasks, "run_tasks", here)
    monkeypatch.setattr(tasks, "reservation", lambda _settings: None)
    monkeypatch.setattr(Session, "connect", lambda _self, **_: None)
    monkeypatch.setattr(connection, "runs", lambda *_: False)
    return Session(lambda: NAMES)


@pytest.fixture
def tuned(tmp_path: Path, own_state: Path, tiny_model: Path) -> JobFolder:
    """A finished job whose result is an adapter."""
    folder = JobFolder(tmp_path / "jobs" / "tuned")
    parameters = {"pretrainedModelType": "sft/llama", "localModelDir": str(tiny_model)}
    folder.create(JobRequest(parameters, "me", 1, False, 1, 1).as_record())
    load(tiny_model, lora=True).save_pretrained(folder.model)
    folder.append("events.jsonl", [{"event": "finished", "time": 1.0, "attempt": 1, "seconds": 2.0}])
    jobs.remember(folder)
    return folder


def test_a_job_is_merged_into_its_own_folder_and_says_how_near_it_is(session: Session, tuned: JobFolder) -> None:
    told: list[str] = []
    made: Any = session.run(
        action="merge", localModelDir="tuned", dtype="float32", outputTable="made", progress=told.append
    )
    assert made.model == str(tuned.root / "merged")
    assert (tuned.root / "merged" / "config.json").is_file()
    assert f"{made.facts['difference']:.2g} (allowed: 0.0001)" in made.summary
    assert "rounds much of that away" not in made.summary
    assert made.tables == {"made": session.table("made")}, "which a cell makes a variable"
    assert session.table("made").df().difference.tolist() == [made.facts["difference"]]
    assert "merge tuned: verifying" in told


def test_a_merge_whose_rounding_outweighs_the_adapter_says_so(
    session: Session, tuned: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"model": "m", "difference": 0.004, "effect": 0.005, "tolerance": 0.05}
    monkeypatch.setattr(tasks, "run_tasks", lambda *_: [facts])
    made: Any = session.run(action="merge", localModelDir="tuned")
    assert 'dtype="float32" keeps it' in made.summary


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"action": "merge", "localModelDir": "tunde"}, 'no folder and no job "tunde"'),
        ({"action": "merge", "localModelDir": "tuned", "modelNameOrPath": "nowhere"}, 'no folder "nowhere"'),
        ({"action": "merge", "localModelDir": "tuned", "pretrainedModelType": "lama"}, "lama"),
        ({"action": "convert", "checkpointDir": "tuned"}, "job tuned has saved no checkpoint"),
        ({"action": "convert", "checkpointDir": "tuned", "tag": "step-7"}, "tag='step-7': there is no such checkpoint"),
        ({"action": "evaluate", "localModelDir": "tunde", "inputTable": "rows"}, "no folder, no job and no deployed"),
        ({"action": "evaluate", "localModelDir": "tuned", "inputTable": "row"}, "no table 'row'"),
        ({"action": "evaluate", "localModelDir": "tuned", "inputTable": "rows", "metric": "mine"}, "no function mine"),
        ({"action": "evaluate", "localModelDir": "tuned", "inputTable": "rows", "metric": "number"}, "no function"),
        ({"action": "evaluate", "localModelDir": "tuned", "inputTable": "rows", "metric": "no_such:f"}, "no_such"),
    ],
)
def test_what_is_wrong_is_said_before_a_cluster_is_needed(
    session: Session, tuned: JobFolder, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], what: str
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was connected")

    monkeypatch.setattr(Session, "connect", never)
    with pytest.raises(ByzerError, match=what):
        session.run(keys)


def test_the_nearest_job_is_suggested(session: Session, tuned: JobFolder) -> None:
    with pytest.raises(ByzerError) as caught:
        session.run(action="merge", localModelDir="tunde")
    assert caught.value.do == 'did you mean "tuned"?'


def test_models_are_compared_the_best_first_and_what_fails_has_its_error(
    session: Session, tuned: JobFolder, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")

    def length(prediction: str, _reference: str) -> float:
        return len(prediction)

    found: Any = session.run(
        {"localModelDir": f"{broken}, tuned, {tiny_model}", "max_new_tokens": 3},
        action="evaluate",
        inputTable=instructions(3),
        metric=length,
        outputTable="scores",
    )
    assert isinstance(found, Evaluation)
    frame = session.table("scores").df()
    assert frame.model.tolist()[-1] == str(broken)
    assert frame.length.dropna().is_monotonic_decreasing
    assert "does not load" in frame.error.iloc[-1]
    assert "1 of 3 models failed (column error)" in capsys.readouterr().out
    predictions = session.table("scores_predictions").df()
    assert predictions.groupby("model").size().to_dict() == {"tuned": 3, str(tiny_model): 3}
    assert predictions.score.tolist() == [float(len(text)) for text in predictions.prediction]
    [record] = tuned.evaluations()
    assert record["metric"] == "length"
    assert record["length"] == frame.set_index("model").length["tuned"]
    assert list(found.tables) == ["scores", "scores_predictions"]


def test_the_loss_alone_needs_no_answers(session: Session, tuned: JobFolder, tiny_model: Path) -> None:
    found: Any = session.run(action="evaluate", localModelDir=f"tuned,{tiny_model}", inputTable="rows", metric="none")
    frame = found.models.df()
    assert "unanswered" not in frame
    assert frame.loss.is_monotonic_increasing
    assert len(found.predictions) == 0
    assert found.tables == {}


def test_a_metric_may_be_a_function_of_a_module_or_have_the_name_of_a_column(
    session: Session, tiny_model: Path
) -> None:
    keys = {"action": "evaluate", "localModelDir": str(tiny_model), "inputTable": "rows", "max_new_tokens": "1"}
    ratio: Any = session.run(keys, metric="tests.unit.magics.test_actions:loss")
    assert ratio.models.df().loss_metric.tolist() == [2.0]
    assert ratio.models.df().loss.tolist() != [2.0]


def loss(_prediction: str, _reference: str) -> float:
    return 2.0


def test_documents_have_a_loss_and_a_metric_for_them_is_refused(session: Session, tiny_model: Path) -> None:
    keys = {"action": "evaluate", "localModelDir": str(tiny_model)}
    documents = pd.DataFrame({"text": ["The red stone is red."] * 3})
    found: Any = session.run(keys, inputTable=documents)
    assert found.models.df().loss.notna().all()
    with pytest.raises(ByzerError, match="rows of plain text hold no answers"):
        session.run(keys, inputTable=documents, metric="exact_match")


def test_a_deployed_model_is_asked_where_it_is(
    session: Session, tuned: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from byzerllm_magics.cluster import answers

    asked: list[Any] = []

    def answer_all(deployment: Any, requests: Any, progress: Callable[[int], None]) -> list[dict[str, Any]]:
        asked.extend(requests)
        progress(len(requests))
        return [{"text": "The stone is red. "}, *({"error": "too long"} for _ in requests[1:])]

    deployment = deployments.Deployment("chat", "me", "RUNNING", 1, 1.0)
    monkeypatch.setattr(connection, "runs", lambda *_: True)
    monkeypatch.setattr(deployments, "listed", lambda _owner: [deployment])
    monkeypatch.setattr(deployments.Deployment, "describe", lambda _self: {"localModelDir": str(tuned.model)})
    monkeypatch.setattr(answers, "answer_all", answer_all)
    found: Any = session.run(action="evaluate", localModelDir="chat", inputTable="rows", max_new_tokens=9)
    [row] = found.models.df().to_dict("records")
    assert (row["exact_match"], row["unanswered"], row["loss"]) == (1.0, 3, None)
    assert asked[0]["instruction"] == "Describe the stone."
    assert (asked[0]["temperature"], asked[0]["generation.max_new_tokens"]) == (0.0, 9)
    assert found.predictions.arrow().column("error").to_pylist() == [None, *["too long"] * 3]
    assert [record["model"] for record in tuned.evaluations()] == ["chat"]
    alone: Any = session.run(action="evaluate", localModelDir="chat", inputTable="rows", metric="none")
    assert "gives answers, and no loss" in alone.models.df().error[0]


def test_a_cell_binds_the_tables_of_an_evaluation(run: Any, shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from byzerllm_magics.tables.catalog import table_of

    made = Evaluation(table_of([{"model": "a", "loss": 1.0}]), table_of([{"model": "a", "row": 0}]), "scores")
    monkeypatch.setattr(Session, "run", lambda _self, _keys, **_: made)
    cell = '%%byzerllm run -o evaluation\naction="evaluate" and localModelDir="a" and inputTable="t"'
    ran = run(cell)
    assert ran.value is shell.user_ns["evaluation"] is made
    assert shell.user_ns["scores"].df().loss.tolist() == [1.0]
    assert shell.user_ns["scores_predictions"] is made.predictions
    assert "loss" in made._repr_html_()


def test_a_script_knows_the_tables_that_an_evaluation_will_make(run: Any) -> None:
    ran = run(
        """%%byzerllm
run command as LLM.`` where action="evaluate" and localModelDir="nowhere" and inputTable="nothing"
and outputTable="scores";
select prediction from scores_predictions;
"""
    )
    assert "there is no table nothing" in ran.text
    assert "scores_predictions" not in ran.text
