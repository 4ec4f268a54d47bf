"""Every block of the two original documents: run, or compared with ours."""

from __future__ import annotations

import ast
import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from byzerllm_trainers import recipe
from byzerllm_trainers.job_request import read_request
from byzerllm_trainers.own_partitions import OwnPartitions
from tests.cluster.documents import FOLDER, PRELUDE, Block, blocks, documents
from tests.tiny import instructions

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(len(documents()) != 2, reason=f"the two documents are not in {FOLDER}"),
]

GOLDEN = Path(__file__).parents[1] / "golden" / "moss-moon-003"

SHOWN: dict[int, str] = {}
"""How each block was shown, by its place; the last test counts them."""


@pytest.fixture(scope="module")
def found() -> list[Block]:
    return blocks()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, corpus: Path) -> dict[str, str]:
    """The documents' paths, and what lies there here."""
    jobs = tmp_path_factory.mktemp("documents")
    return {
        "/home/byzerllm/models/openbuddy-llama-13b-v5-fp16": str(tiny_model),
        "/home/byzerllm/models/Llama-2-7b-chat-hf": str(tiny_model),
        "/home/byzerllm/models/moss-moon-003-sft-plugin-int8": str(make_moss(jobs / "moss")),
        "/home/byzerllm/models/sft/jobs": str(jobs / "sft"),
        "/home/byzerllm/models/sfft/jobs": str(jobs / "sfft"),
        "/home/byzerllm/data/raw_data": str(corpus),
        "/home/byzerllm/data/checkpoints": str(jobs / "checkpoints"),
        '"/home/byzerllm/data"': f'"{jobs / "data"}"',
    }


@pytest.fixture(scope="module")
def user(session: Any) -> Iterator[Any]:
    """A session of the reader's own, in which blocks leave behind what later ones use."""
    from byzerllm_magics.session import Session

    user = Session()
    user.setup("sfft", num_gpus=2)  # the modes of the blocks would reset another owner
    user.tables["sft_data"] = instructions(33)
    yield user
    for model in user.own_models():
        user.undeploy(model)


def make_moss(folder: Path) -> Path:
    """Write a MOSS with random weights and a tokenizer of its family; the document's prompt takes 1,500 tokens."""
    from byzerllm_adapters.moss import MossConfig, MossForCausalLM

    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    sizes = {"vocab_size": 512, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 2048}
    MossForCausalLM(MossConfig(**sizes, bos_token_id=1, eos_token_id=503)).save_pretrained(folder)
    return folder


def show(found: list[Block], index: int, language: str, how: str) -> Block:
    assert found[index].language == language
    SHOWN[index] = how
    return found[index]


def script(user: Any, block: Block, paths: dict[str, str]) -> Any:
    """Run a block of SQL as a script."""
    return user.script(block.here(paths))


def ended(job: Any) -> Any:
    row = job.wait()
    assert row["status"] == "finished", row
    return row


def python(block: Block, paths: dict[str, str], **names: Any) -> dict[str, Any]:
    """Run a block of Python and return its names; what one of them sets in the environment does not outlive it."""
    namespace: dict[str, Any] = {"ds_config": DS_CONFIG[0], **names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        exec(PRELUDE, namespace)
        exec(compile(block.here(paths), "block", "exec"), namespace)
    return namespace


DS_CONFIG: list[str] = []


# -- settings and tables that later blocks use ------------------------------------------------------------


def test_the_deepspeed_configuration_becomes_a_variable(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    script(user, show(found, 14, "sql", "run: set ds_config"), paths)
    assert '"stage": 3' in user.variables["ds_config"]
    DS_CONFIG.append(user.variables["ds_config"])


def test_raw_text_is_loaded_and_renamed(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    table = script(user, show(found, 12, "sql", "run: load text, select"), paths)
    assert table.column_names == ["text", "file"]
    assert table.num_rows == user.tables.table("trainData").num_rows > 1


# -- deploy and ask ---------------------------------------------------------------------------------------


def test_the_model_is_deployed(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    model = script(user, show(found, 1, "sql", "run: infer"), paths)
    assert (model.name, model.status) == ("llama_13b_chat", "RUNNING")


def test_the_model_is_called_from_sql(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    table = script(user, show(found, 4, "sql", "run: select llama_13b_chat(llm_param(map(…)))"), paths)
    assert user.tables.table("q1") is table
    assert table.column_names == ["q"]
    text = user.select(
        "select llm_result(q) as text, llm_response_predict(q) as same, llm_error(q) as why from q1"
    ).df()
    assert isinstance(text.text[0], str)
    assert text.text[0] == text.same[0]
    assert text.why.isna().all()


# -- train ------------------------------------------------------------------------------------------------


def test_fine_tuning_by_a_statement(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    job = script(user, show(found, 6, "sql", "run: sft to the end"), paths)
    assert job.detached
    row = ended(job)
    result = user.select("select name, status, model, steps from llama2_300").df()
    assert result.iloc[0].tolist() == [job.name, "finished", row["model"], row["steps"]]


def test_pretraining_by_a_script_that_repartitions_first(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    job = script(user, show(found, 13, "sql", "run: repartition, sfft to the end"), paths)
    assert job.name == "sfft-wiliam-llama2-pretrain"
    assert user.tables.table("finalTrainData").partitions == 2
    ended(job)
    own = recipe.find("sfft").plan(recipe.Job(job.folder, read_request(job.folder)))
    assert isinstance(own, OwnPartitions), 'keepPartitionNum="true"'
    assert [step["tokens"] for step in job.folder.metrics()] == [own.counts(k)[1] for k in range(len(job.metrics()))]


def test_pretraining_with_the_documents_deepspeed_configuration(
    found: list[Block], user: Any, paths: dict[str, str]
) -> None:
    job = script(user, show(found, 8, "sql", "run: sfft with ${ds_config} to the end"), paths)
    ended(job)
    assert job.folder.request()["workers"] == 2


def test_deepspeed_train_of_a_model_that_is_loaded(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    names = python(show(found, 10, "python", "run: DeepSpeedTrain"), paths)
    assert (names["dst"].folder.model / "config.json").is_file()


def test_deepspeed_train_of_a_model_from_scratch(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    names = python(show(found, 15, "python", "run: DeepSpeedTrain from scratch"), paths)
    from byzerllm_adapters.baichuan import load_model

    assert load_model(str(names["dst"].folder.model)).config.model_type == "baichuan"


def test_sfft_train_is_a_plain_call(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    python(show(found, 11, "python", "run: sfft_train"), paths)
    [job] = (Path(paths['"/home/byzerllm/data"'].strip('"'))).iterdir()
    assert (job / "model" / "config.json").is_file()


# -- the contract of an adapter ---------------------------------------------------------------------------


def test_answers_print_as_text(
    found: list[Block], user: Any, paths: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = python(show(found, 9, "python", "run: init_model, stream_chat, print"), paths)
    printed = capsys.readouterr().out
    assert printed.strip() == str(names["response"]).strip()
    assert "object at 0x" not in printed


def test_stream_chat_is_bound_to_a_model(found: list[Block], user: Any, paths: dict[str, str]) -> None:
    from byzerllm_adapters.causal_lm import load_model, load_tokenizer, stream_chat

    folder = paths["/home/byzerllm/models/Llama-2-7b-chat-hf"]
    model = load_model(folder)
    python(show(found, 2, "python", "run: a model gets stream_chat"), paths, model=model, stream_chat=stream_chat)
    assert isinstance(str(model.stream_chat(load_tokenizer(folder), "Hello", [], max_new_tokens=3)), str)


@pytest.mark.parametrize(
    ("index", "ours"),
    [(0, "byzerllm_adapters.causal_lm:init_model"), (3, "byzerllm_adapters.causal_lm:stream_chat")],
)
def test_signatures_are_those_of_the_document(found: list[Block], paths: dict[str, str], index: int, ours: str) -> None:
    block = show(found, index, "python", f"compared: the signature of {ours.partition(':')[2]}")
    names: dict[str, Any] = {}
    exec(PRELUDE.replace("DEFUALT_CONFIG = ds_config", "") + block.text.rstrip() + " ...\n", names)
    module, _, name = ours.partition(":")
    theirs = inspect.signature(names[name]).parameters.values()
    own = list(inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters.values())
    shared = [parameter for parameter in own if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]  # ours add these
    for their, our in zip(theirs, shared, strict=True):
        assert (their.name, their.kind) == (our.name, our.kind)
        assert our.default == their.default or (our.default in ((), None) and their.default in ([], {}))
    assert all(parameter.default is not parameter.empty for parameter in own if parameter not in shared)


@pytest.mark.parametrize("index", [5, 7])
def test_an_adapters_own_training_functions_call_ours(
    found: list[Block], user: Any, paths: dict[str, str], index: int, tmp_path: Path
) -> None:
    block = show(found, index, "python", "run: an adapter's function calls ours and trains")
    name = ast.parse(block.text).body[0].name  # type: ignore[attr-defined]
    method = name.removesuffix("_train")
    from byzerllm_adapters.data import DataServer, RayContext

    rows = instructions(16) if method == "sft" else pd.DataFrame({"text": ["The red house is red."] * 64})
    servers = [DataServer(rows)]
    assert len(list(RayContext.collect_from(servers))) == len(rows)
    parameters = {
        "pretrainedModelType": f"{method}/llama2",
        "localModelDir": paths["/home/byzerllm/models/Llama-2-7b-chat-hf"],
        "localPathPrefix": str(tmp_path),
        f"{method}.max_steps": "2",
    }
    train: Callable[..., Any] = python(block, paths)[name]
    [row] = list(train(servers, parameters, {"num_gpus": 1, "OWNER": "reader"}))
    assert row["status"] == "finished"


def test_all_sixteen_blocks_were_shown(found: list[Block], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{len(SHOWN)} of {len(found)} blocks of the two documents:")
        for index, block in enumerate(found):
            print(f"  {index:2} document {block.document + 1}, {block.language:6} {SHOWN.get(index, 'NOT SHOWN')}")
    assert len(found) == 16
    assert sorted(SHOWN) == list(range(16))
