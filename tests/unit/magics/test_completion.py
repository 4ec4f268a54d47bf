"""What is offered while one types, in cells and lines of ours and nowhere else."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter

from byzerllm_magics.completion import complete
from byzerllm_magics.session import Session


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Session:
    monkeypatch.setenv("BYZERLLM_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("byzerllm_magics.cluster.connection.is_connected", lambda: True)
    monkeypatch.setattr(Session, "own_models", lambda _: ["chat", "story"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "data.csv").touch()
    return Session(lambda: {"questions": pd.DataFrame({"q": ["x"]}), "base": "models/tiny", "_hidden": "no"})


@pytest.mark.parametrize(
    ("before", "fragment", "some"),
    [
        ("%byzerllm ", "", ["jobs", "setup", "params"]),
        ("x = 1\n%byzerllm sh", "sh", ["shutdown"]),
        ("%byzerllm undeploy s", "s", ["story"]),
        ("%byzerllm params sf", "sf", ["sft", "sfft"]),
        ("%llm_chat -m c", "c", ["chat"]),
        ("%%byzerllm r", "r", ["run"]),
        ("%%byzerllm est", "est", ["estimate"]),
        ("%%byzerllm estimate\nlocalM", "localM", ["localModelDir"]),
        ("%%byzerllm setup\ns", "s", ["single", "sft", "sfft"]),
        ("%%byzerllm setup\nd", "d", ["dpo"]),
        ("%%byzerllm setup\nsingle\nnum_", "num_", ["num_gpus", "num_cpus"]),
        ('%%byzerllm run\naction="', "", ["infer", "finetune"]),
        ("%%byzerllm run --", "--", ["--wait", "--output"]),
        ("%%byzerllm run\nsft.int.num", "sft.int.num", ["sft.int.num_train_epochs"]),
        ("%%byzerllm run\nbackend", "backend", ["backend."]),
        ("%%byzerllm\nrun q", "q", ["questions"]),
        ("%%byzerllm\nrun questions as T", "T", ["TableRepartition.`` where"]),
        ("%%byzerllm\nrun command as ", "", ["LLM.`` where"]),
        ("%%byzerllm\n!byzerllm model remove s", "s", ["story"]),
        ("%%byzerllm\nload csv.`d.csv` where h", "h", ["header"]),
        ('%%byzerllm\nload csv.`d.csv` where header="true" and s', "s", ["sep"]),
        ("%%byzerllm\nrun questions as TableRepartition.`` where partition", "partition", ["partitionNum"]),
        ("%%byzerllm\nselect q from questions where ", "", ["q"]),
        ('%%byzerllm run\naction="infer" and ud', "ud", ["udfName"]),
        ("%%byzerllm run\naction=infer\nlocalM", "localM", ["localModelDir"]),
        ('%%byzerllm run\naction="m', "m", ["merge"]),
        ('%%byzerllm run\naction="merge" and save', "save", ["savePath"]),
        ('%%byzerllm run\naction="evaluate" and inputTable="q', "q", ["questions"]),
        ('%%byzerllm run\naction="evaluate" and met', "met", ["metric"]),
        ('%%byzerllm run\naction="convert" and checkpointDir="mod', "mod", ["models/"]),
        ('%%byzerllm run\npretrainedModelType="sft/ll', "sft/ll", ["sft/llama", "sft/llama2"]),
        ('%%byzerllm run\npretrainedModelType="sft/llama"\nand sft.lora_', "sft.lora_", ["sft.lora_rank"]),
        ('%%byzerllm run\npretrainedModelType="sft/llama"\nand `sft.int.lo', "sft.int.lo", ["sft.int.lora_rank"]),
        ('%%byzerllm run\npretrainedModelType="dpo/ll', "dpo/ll", ["dpo/llama"]),
        ('%%byzerllm run\npretrainedModelType="dpo/llama"\nand dpo.be', "dpo.be", ["dpo.beta"]),
        ('%%byzerllm run\ndpo.loss_type="i', "i", ["ipo"]),
        ('%%byzerllm run\npretrainedModelType="sft/a" and inputTable="q', "q", ["questions"]),
        ('%%byzerllm run\nlocalModelDir="mod', "mod", ["models/"]),
        ('%%byzerllm run\nlocalModelDir="models/', "models/", ["models/tiny/"]),
        ('%%byzerllm run\nlocalModelDir="${b', "b", ["base"]),
        ('%%byzerllm run\nsft.bf16="t', "t", ["true"]),
        ("%%byzerllm\n", "", ["load", "select", "!byzerllm setup"]),
        ("%%byzerllm\nselect 1 as a as t;\nlo", "lo", ["load"]),
        ("%%byzerllm\nload c", "c", ["csv"]),
        ("%%byzerllm\nload csv.`da", "da", ["data.csv"]),
        ("%%byzerllm\nselect * from q", "q", ["questions"]),
        ("%%byzerllm\nselect llm_p", "llm_p", ["llm_param", "llm_prompt"]),
        ("%%byzerllm\nselect ch", "ch", ["chat"]),
        ("%%byzerllm\nselect b.q from questions b where b.", "b.", ["b.q"]),
        ("%%byzerllm\nselect 1 as a as made;\nselect a from m", "m", ["made"]),
        ("%%byzerllm\nselect 1 as a as made;\nrun m", "m", ["made"]),
        ('%%byzerllm\nselect chat(llm_param(map("ins', "ins", ["instruction"]),
        ('%%byzerllm\nselect chat(llm_param(map("instruction", concat(q, "a"), "tem', "tem", ["temperature"]),
        ("%%byzerllm\nselect row_n", "row_n", ["row_number"]),
        ("%%byzerllm\n!byzerllm setup s", "s", ["single", "sft"]),
        ("%%byzerllm\nset word = 'a;b';\nselect '${w", "w", ["word"]),
        ('%%byzerllm\nrun command as LLM.`` where action="infer" and udf', "udf", ["udfName"]),
    ],
)
def test_what_may_follow_is_offered(session: Session, before: str, fragment: str, some: list[str]) -> None:
    offer = complete(session, before)
    assert offer is not None
    assert offer.fragment == fragment
    assert before.endswith(fragment)
    assert set(some) <= set(offer.words), offer.words
    assert all(word.lower().startswith(fragment.lower()) for word in offer.words)


@pytest.mark.parametrize(
    "before", ["", "import os\nos.pa", "%byzerllm jobs x", "%%timeit\nselect", "# %%byzerllm run\nx"]
)
def test_other_cells_are_left_alone(session: Session, before: str) -> None:
    assert complete(session, before) is None


@pytest.mark.parametrize(
    ("before", "after", "some"),
    [
        ("select ", " from questions as t;", "q"),
        ("select x.", "\n  from questions as x;\nselect 1", "x.q"),
        ("select ", " from other;\nselect q from questions", None),
    ],
)
def test_columns_are_those_of_the_tables_behind_the_cursor_too(
    session: Session, before: str, after: str, some: str | None
) -> None:
    offer = complete(session, f"%%byzerllm\n{before}", after)
    assert offer is not None
    assert some in offer.words if some else "q" not in offer.words


def test_the_value_of_a_request_is_no_key(session: Session) -> None:
    offer = complete(session, '%%byzerllm\nselect chat(llm_param(map("instruction", "ins')
    assert offer is not None
    assert "instruction" not in offer.words


def test_a_key_is_offered_with_its_own_type(session: Session) -> None:
    for typed, offered in (("float", ("sft.float.learning_rate",)), ("int", ())):
        offer = complete(session, f"%%byzerllm run\nsft.{typed}.learning_r")
        assert offer is not None
        assert offer.words == offered


def test_a_key_that_is_there_is_not_offered_again(session: Session) -> None:
    offer = complete(session, '%%byzerllm run\naction="infer"\nudfName="chat"\n')
    assert offer is not None
    assert "udfName" not in offer.words
    assert "localModelDir" in offer.words
    assert "sft.lora_rank" not in offer.words


def test_the_shell_offers_ours_alone_inside_our_cells(shell: Any) -> None:
    def offered(code: str) -> set[str]:
        with provisionalcompleter():
            return {completion.text for completion in shell.Completer.completions(code, len(code))}

    assert offered("%%byzerllm setup\nsi") == {"single"}
    assert offered('%%byzerllm run\naction="infer"\nand local') == {"localModelDir"}
    assert "print" in offered("pri")
    shell.run_line_magic("unload_ext", "byzerllm_magics")
    assert "single" not in offered("%%byzerllm setup\nsi")
    shell.run_line_magic("load_ext", "byzerllm_magics")
