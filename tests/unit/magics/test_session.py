"""What a script does by the same session, as far as no cluster is needed."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import connection, embedded, jobs
from byzerllm_magics.cluster.embedded import EmbeddedCluster
from byzerllm_magics.session import Session
from byzerllm_magics.state_folder import state_folder
from byzerllm_trainers import follow, submit
from byzerllm_trainers.job_folder import JobFolder
from byzerllm_trainers.job_request import JobRequest

pytestmark = pytest.mark.usefixtures("own_state")


@pytest.fixture
def session() -> Session:
    names = {"rows": pd.DataFrame({"instruction": ["a"], "output": ["b"]}), "number": 7, "_hidden": pd.DataFrame()}
    return Session(lambda: names)


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "jobs" / "sft-demo")
    parameters = {"pretrainedModelType": "sft/llama", "localModelDir": "m"}
    folder.create(JobRequest(parameters, "me", 1, False, 1, 1).as_record())
    return folder


def test_a_dataframe_variable_is_a_table(session: Session) -> None:
    assert session.table("rows").arrow().to_pydict() == {"instruction": ["a"], "output": ["b"]}
    assert session.table_names() == ["rows"]


class Dataset:
    """A Ray Dataset as far as a table is made of it."""

    def materialize(self) -> None: ...

    def iter_batches(self, *, batch_format: str) -> Any:
        assert batch_format == "pyarrow"
        yield from (pa.table({"text": [text]}) for text in "ab")


def test_a_ray_dataset_is_handed_on_to_a_job_and_a_table_elsewhere() -> None:
    data = Dataset()
    session = Session(lambda: {"data": data})
    session.tables["held"] = data
    assert session.rows("data") is session.rows("held") is session.rows(data) is data
    assert session.table_names() == ["data", "held"]
    assert session.table("data").arrow().to_pydict() == {"text": ["a", "b"]}


def test_rows_to_train_on_are_a_table_otherwise(session: Session) -> None:
    assert session.rows("rows").num_rows == 1
    with pytest.raises(ByzerError, match="no table 'row'"):
        session.rows("row")


def test_a_table_of_the_session_comes_before_a_variable(session: Session) -> None:
    session.tables["rows"] = pd.DataFrame({"text": ["mine"]})
    assert session.table("rows").arrow().to_pydict() == {"text": ["mine"]}


def test_a_jobs_table_is_its_result_row(session: Session, job: JobFolder) -> None:
    session.tables["trained"] = jobs.Job(job)
    job.append("events.jsonl", [{"event": "finished", "time": 1.0, "attempt": 1, "seconds": 2.0}])
    [row] = session.table("trained").arrow().to_pylist()
    assert (row["name"], row["status"]) == ("sft-demo", "finished")


@pytest.mark.parametrize(
    ("name", "what", "do"),
    [
        ("row", "no table 'row'", 'did you mean "rows"?'),
        ("zzzz", "no table 'zzzz'", "a DataFrame variable"),
        ("number", "a int, not a table", "give a pandas DataFrame"),
    ],
)
def test_what_is_no_table_is_an_error(session: Session, name: str, what: str, do: str) -> None:
    with pytest.raises(ByzerError) as caught:
        session.table(name)
    assert what in caught.value.what
    assert do in caught.value.do


def test_settings_hold_until_a_mode_resets_them(session: Session) -> None:
    session.configure("sfft", {"num_gpus": 3, "OWNER": "me"})
    session.configure(None, {"maxConcurrency": "2"})
    assert (session.settings.num_gpus, session.settings.owner, session.settings.max_concurrency) == (3, "me", 2)
    with pytest.raises(ByzerError):
        session.configure("sft", {"num_gpus": "many"})
    assert session.settings.num_gpus == 3
    session.configure("single")
    assert (session.settings.num_gpus, session.settings.max_concurrency) == (1, 1)


def test_an_adapter_gets_the_settings_as_text(session: Session) -> None:
    session.configure(None, {"num_gpus": 2, "OWNER": "me"})
    conf = session.settings.as_sys_conf()
    assert (conf["num_gpus"], conf["owner"], conf["maxConcurrency"]) == ("2", "me", "1")
    assert "num_cpus" not in conf


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, job: JobFolder) -> dict[str, Any]:
    """What a training statement hands to the trainers."""
    seen: dict[str, Any] = {}

    def fake(parameters: Any, **details: Any) -> JobFolder:
        seen.update(details, parameters=dict(parameters))
        return job

    monkeypatch.setattr(submit, "submit", fake)
    monkeypatch.setattr(Session, "connect", lambda _session: seen.update(connected=True))
    return seen


def test_training_takes_the_table_the_workers_and_the_owner(session: Session, submitted: dict[str, Any]) -> None:
    session.configure(None, {"num_gpus": 2, "OWNER": "me", "num_cpus": 1.5})
    keys = {"pretrainedModelType": "sft/llama", "localModelDir": "m", "inputTable": "rows", "outputTable": "trained"}
    found = session.run(keys, **{"sft.max_steps": 3})
    assert isinstance(found, jobs.Job)
    assert submitted["parameters"] == {**keys, "sft.max_steps": 3}
    assert (submitted["owner"], submitted["workers"], submitted["num_cpus"]) == ("me", 2, 1.5)
    assert submitted["table"].num_rows == 1
    assert session.tables["trained"] is found
    assert [known.name for known in session.jobs()] == ["sft-demo"]
    assert session.job("sft-demo").folder.root == found.folder.root


@pytest.mark.parametrize("kind", [pd.DataFrame, pa.table])
def test_training_takes_a_table_itself(session: Session, submitted: dict[str, Any], kind: Any) -> None:
    keys = {"pretrainedModelType": "sft/llama", "localModelDir": "m"}
    rows = kind({"instruction": ["a", "b"], "output": ["c", "d"]})
    session.run(keys, inputTable=rows, evalTable=None)
    assert submitted["table"].column("output").to_pylist() == ["c", "d"]
    assert submitted["eval_table"] is None
    session.run(keys, inputTable=rows, evalTable=rows)
    assert submitted["eval_table"].num_rows == 2


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"inputTable": "row"}, "no table 'row'"),
        ({}, "there is no data to train on"),
        ({"inputTable": "rows", "localDataDir": "d"}, "both given"),
        ({"inputTable": "rows", "sft.max_stepps": 1}, "is not a known parameter"),
    ],
)
def test_bad_input_is_refused_before_a_cluster_is_needed(
    session: Session, submitted: dict[str, Any], keys: dict[str, Any], what: str
) -> None:
    with pytest.raises(ByzerError, match=what):
        session.run({"pretrainedModelType": "sft/llama", "localModelDir": "m", **keys})
    assert submitted == {}


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"localModelDir": "nowhere"}, 'no folder "nowhere"'),
        ({"localModelDir": "nowhere", "pretrainedModelType": "lama"}, "lama"),
        ({"action": "inferr"}, "is not an action"),
    ],
)
def test_a_deployment_is_checked_before_a_cluster_is_needed(
    session: Session, submitted: dict[str, Any], keys: dict[str, Any], what: str
) -> None:
    with pytest.raises(ByzerError, match=what):
        session.run({"action": "infer", "udfName": "chat", "pretrainedModelType": "llama", **keys})
    assert submitted == {}


def test_shutting_down_spares_a_running_job(session: Session, job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []
    jobs.remember(job)
    monkeypatch.setattr(connection, "is_connected", lambda: True)
    monkeypatch.setattr(connection, "shutdown", lambda: ended.append(True) or True)
    monkeypatch.setattr(follow, "is_alive", lambda _folder: True)
    with pytest.raises(ByzerError, match="still running: sft-demo"):
        session.shutdown()
    assert ended == []
    assert session.shutdown(force=True)
    monkeypatch.setattr(follow, "is_alive", lambda _folder: False)  # a job that a crash left behind
    assert session.shutdown()
    job.append("events.jsonl", [{"event": "stopped", "time": 1.0, "attempt": 1}])
    assert session.shutdown()


def test_a_kernel_that_has_just_started_spares_another_kernels_job(
    session: Session, job: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []
    jobs.remember(job)
    monkeypatch.setattr(connection, "is_connected", lambda: bool(connected))
    monkeypatch.setattr(connection, "connect", connected.append)
    monkeypatch.setattr(embedded, "find", lambda: EmbeddedCluster("127.0.0.1:7", "", "", {}, []))
    monkeypatch.setattr(follow, "is_alive", lambda _folder: True)
    with pytest.raises(ByzerError, match="still running: sft-demo"):
        session.shutdown()
    assert connected == ["127.0.0.1:7"]


def test_the_state_folder_is_the_users_and_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYZERLLM_STATE", str(tmp_path / "named"))
    assert state_folder() == tmp_path / "named"
    monkeypatch.delenv("BYZERLLM_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder() == tmp_path / "xdg" / "byzerllm"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "byzerllm"
    assert state_folder().is_dir()
