"""Cells that set up, deploy and train, with the cluster's part replaced."""

from typing import Any

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster.connection import ClusterInfo
from byzerllm_magics.session import Session

INFO = ClusterInfo(
    address="127.0.0.1:6379",
    embedded=True,
    dashboard="http://127.0.0.1:8265",
    nodes=1,
    total={"CPU": 4.0, "memory": 8 * 2**30},
    free={"CPU": 2.5, "memory": 6 * 2**30},
)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The session, once a cell connected it to a cluster of four CPUs."""
    seen: list[Session] = []

    def connect(session: Session) -> ClusterInfo:
        seen.append(session)
        return INFO

    monkeypatch.setattr(Session, "connect", connect)
    return seen


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The keys of every statement that a cell ran."""
    seen: list[dict[str, Any]] = []

    def run(_session: Session, parameters: dict[str, Any], **_options: Any) -> str:
        seen.append(dict(parameters))
        return f"result {len(seen)}"

    monkeypatch.setattr(Session, "run", run)
    return seen


@pytest.mark.parametrize(
    "cell",
    [
        "%%byzerllm setup\nsfft\nnum_gpus=2\nOWNER=me\n",
        "%%byzerllm setup sfft num_gpus=2\nOWNER=me\n",
        "%byzerllm setup sfft num_gpus=2 OWNER=me",
    ],
)
def test_setup_changes_the_settings_and_shows_the_cluster(run: Any, sessions: list[Session], cell: str) -> None:
    ran = run(cell)
    settings = sessions[-1].settings
    assert (settings.num_gpus, settings.owner) == (2, "me")
    text = repr(ran.value)
    for part in ("127.0.0.1:6379 · embedded cluster", "2.5 of 4 CPUs", "6.0 of 8.0 GiB", "num_gpus=2", "owner=me"):
        assert part in text
    assert "no GPU in this cluster, so it counts CPU workers" in text
    html = ran.value._repr_html_()
    assert html.count("<tr>") == len(text.splitlines())


def test_the_card_says_where_the_token_is_and_never_what_it_is(
    run: Any, sessions: list[Session], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("s3cret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    text = repr(run("%byzerllm setup").value)
    assert str(tmp_path / "token") in text
    assert "s3cret" not in text


def test_a_wrong_setting_is_shown_at_its_place_and_nothing_is_started(run: Any, sessions: list[Session]) -> None:
    ran = run("%%byzerllm setup\nsingle\nnum_gpu=2\n")
    assert isinstance(ran.error, ByzerError)
    assert any("^^^^" in line for line in ran.lines)
    assert "num_gpus" in ran.lines[-1]
    assert len(ran.lines) <= 5
    assert sessions == []


def test_more_gpus_than_there_are_is_an_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    info = ClusterInfo("a:1", False, "", 1, {"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr(Session, "connect", lambda _session: info)
    ran = run("%byzerllm setup sft num_gpus=8")
    assert ran.lines[0] == "ByzerError: num_gpus=8, and the cluster has 2 GPUs"
    assert ran.lines[1] == "1 of them are free"


def test_a_run_cell_hands_its_keys_to_the_session(run: Any, shell: Any, statements: list[dict[str, Any]]) -> None:
    ran = run('%%byzerllm run -o model\naction="infer" and localModelDir="a/b"\nand udfName="chat"\n')
    assert statements == [{"action": "infer", "localModelDir": "a/b", "udfName": "chat"}]
    assert ran.value == shell.user_ns["model"] == "result 1"


def test_names_in_values_are_variables_of_the_notebook(run: Any, shell: Any, statements: list[dict[str, Any]]) -> None:
    shell.user_ns.update(base="models/tiny", steps=7, _hidden="no")
    run('%%byzerllm run\nlocalModelDir="${base}"\nsft.max_steps="${steps}"\nname="costs $5 {base}"\n')
    assert statements == [{"localModelDir": "models/tiny", "sft.max_steps": "7", "name": "costs $5 {base}"}]


def test_an_undefined_name_is_shown_at_its_place(run: Any, shell: Any, statements: list[dict[str, Any]]) -> None:
    shell.user_ns["base"] = "models/tiny"
    ran = run('%%byzerllm run\nlocalModelDir="${bsae}"\n')
    assert isinstance(ran.error, ByzerError)
    assert "bsae" in ran.lines[0]
    assert any("^" in line for line in ran.lines)
    assert "base" in ran.lines[-1]
    assert statements == []


def test_a_wrong_key_is_shown_at_its_place(run: Any) -> None:
    ran = run('%%byzerllm run\naction="infer"\nlocalModelDri="a"\nudfName="chat"\n')
    assert isinstance(ran.error, ByzerError)
    assert ran.lines[0] == "LanguageError: localModelDri is not a known parameter", (
        "it is mistyped, not missing besides"
    )
    assert "line 3" in ran.text
    assert "localModelDir" in ran.text
    assert len(ran.lines) <= 5


def test_a_mistyped_action_is_shown_at_its_place(run: Any) -> None:
    ran = run('%%byzerllm run\nation="infer" and udfName="chat"\n')
    assert "line 2, column 1" in ran.text
    assert any("^" in line for line in ran.lines)
    assert ran.lines[-1] == "→ did you mean action?"
    assert len(ran.lines) <= 5


def test_a_mistyped_action_is_told_with_what_else_is_wrong_for_the_nearest_one(run: Any) -> None:
    ran = run('%%byzerllm run\naction="inferr" and localModeDir="model" and udfName="x"\n')
    assert ran.lines[0] == "LanguageError: 2 problems"
    assert "did you mean infer?" in ran.text
    assert "did you mean localModelDir?" in ran.text


def test_an_unknown_folder_of_a_model_is_an_error_before_anything_starts(run: Any, sessions: list[Session]) -> None:
    cells = [
        'action="infer" and pretrainedModelType="llama" and localModelDir="nowhere" and udfName="chat"',
        'pretrainedModelType="sft/llama" and localModelDir="nowhere"',
    ]
    for cell, what in zip(cells, ('no folder "nowhere"', "there is no data to train on"), strict=True):
        ran = run(f"%%byzerllm run\n{cell}\n")
        assert what in ran.text
        assert 'no folder "nowhere"' in ran.text
        assert len(ran.lines) <= 7
    assert sessions == []


def test_a_script_runs_its_statements_in_order(
    run: Any, sessions: list[Session], statements: list[dict[str, Any]]
) -> None:
    ran = run(
        "%%byzerllm\n"
        "!byzerllm setup single;\n"
        '!byzerllm setup "num_gpus=3";\n'
        'set model = "models/tiny";\n'
        'run command as LLM.`` where action="infer" and localModelDir="${model}" and udfName="a";\n'
        'run command as LLM.`` where action="infer" and localModelDir="${model}" and udfName="b";\n'
    )
    assert ran.error is None, ran.text
    assert ran.value == "result 2"
    assert [(keys["localModelDir"], keys["udfName"]) for keys in statements] == [
        ("models/tiny", "a"),
        ("models/tiny", "b"),
    ]


def test_a_script_with_a_wrong_value_runs_nothing(run: Any, statements: list[dict[str, Any]]) -> None:
    ran = run(
        "%%byzerllm\n"
        'run command as LLM.`` where action="infer" and udfName="a";\n'
        '!byzerllm setup "num_gpus=many";\n'
        'run command as LLM.`` where action="infer" and udfName="b";\n'
    )
    assert isinstance(ran.error, ByzerError)
    assert "line 2" in ran.text
    assert statements == []


def test_a_script_that_cannot_be_read_does_nothing(run: Any, statements: list[dict[str, Any]]) -> None:
    ran = run('%%byzerllm\nrun command as LLM.`` where udfName="a";\nrnu command as LLM.`` where udfName="b";\n')
    assert isinstance(ran.error, ByzerError)
    assert any("^" in line for line in ran.lines)
    assert statements == []
