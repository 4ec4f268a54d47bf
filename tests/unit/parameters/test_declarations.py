"""The keys of this project: what they accept, what they refuse, what help says."""

import json

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.infer_parameters import InferParameters
from byzerllm_adapters.parameters import ParameterError, as_strings, describe, notes, read
from byzerllm_magics.language import parse_run, parse_setup
from byzerllm_magics.parameters import ACTIONS, GROUPS, MODES, SetupSettings, at_the_caret, configure, help_text, route
from byzerllm_trainers.optimization_parameters import DpoParameters, SftParameters
from byzerllm_trainers.train_parameters import TrainParameters, methods

SFT = {"pretrainedModelType": "sft/llama2", "localModelDir": "m"}


def problem(declaration, raw):
    with pytest.raises(ParameterError) as caught:
        read(declaration, raw)
    (only,) = caught.value.problems
    return only


def test_the_original_documents_keys_deploy():
    raw = {"action": "infer", "pretrainedModelType": "llama", "localModelDir": "m", "reconnect": "true"}
    infer = read(InferParameters, raw | {"udfName": "llama_13b_chat", "modelTable": "command"})
    assert (infer.udf_name, infer.reconnect, infer.dtype, infer.trust_remote_code) == (
        "llama_13b_chat",
        True,
        "auto",
        False,
    )


@pytest.mark.parametrize(
    ("raw", "key", "what"),
    [
        ({"udfName": "my chat", "localModelDir": "m"}, "udfName", "is not a name for a function"),
        ({"udfName": "1a", "localModelDir": "m"}, "udfName", "is not a name for a function"),
        ({"localModelDir": "m"}, "udfName", "udfName is missing"),
        ({"udfName": "chat"}, "localModelDir", "localModelDir is missing"),
        ({"udfName": "chat", "localModelDir": ""}, "localModelDir", "localModelDir is empty"),
        *(
            (
                {"udfName": "c", "localModelDir": "m", "pretrainedModelType": f"{method}/llama"},
                "pretrainedModelType",
                "a way to train",
            )
            for method in ("sft", "dpo")
        ),
        ({"udfName": "c", "localModelDir": "m", "dtype": "bf16"}, "dtype", 'dtype="bf16" is not allowed'),
    ],
)
def test_what_cannot_be_deployed_is_refused(raw, key, what):
    found = problem(InferParameters, raw)
    assert found.key == key
    assert what in found.what


def test_help_names_no_family_that_has_no_adapter():
    assert "saas/" not in help_text("infer")


def test_a_whole_number_may_stand_for_a_float_as_in_the_documents():
    assert read(TrainParameters, SFT | {"sft.int.num_train_epochs": "3"}).sft.num_train_epochs == 3.0


def test_reconnecting_needs_no_model_folder():
    assert read(InferParameters, {"udfName": "chat", "reconnect": "true"}).local_model_dir is None


def test_the_original_documents_keys_train():
    raw = SFT | {
        "localPathPrefix": "jobs",
        "model": "command",
        "inputTable": "t",
        "outputTable": "o",
        "detached": "true",
    }
    train = read(TrainParameters, raw | {"sft.int.max_seq_length": "512", "keepPartitionNum": "true"})
    assert (train.method, train.family, train.sft.max_seq_length) == ("sft", "llama2", 512)
    assert train.optimization is train.sft


def test_sfft_has_defaults_of_its_own_for_the_shared_keys():
    train = read(
        TrainParameters,
        SFT | {"pretrainedModelType": "sfft/llama2", "sfft.bool.setup_nccl_socket_ifname_by_ip": "true"},
    )
    assert (train.sft.adam_beta2, train.sfft.adam_beta2) == (0.999, 0.95)
    assert train.optimization is train.sfft
    assert train.sfft.setup_nccl_socket_ifname_by_ip is True


def test_preference_tuning_takes_what_fine_tuning_takes_with_defaults_of_its_own():
    raw = {"pretrainedModelType": "dpo/llama2", "dpo.float.beta": "0.3", "dpo.int.lora_rank": "8"}
    train = read(TrainParameters, SFT | raw)
    assert (train.method, train.family, train.dpo.beta, train.dpo.lora_rank) == ("dpo", "llama2", 0.3, 8)
    assert train.optimization is train.dpo
    assert (train.dpo.learning_rate, train.dpo.lora_dropout, train.dpo.loss_type) == (5e-6, 0.0, "sigmoid")
    sft_alone = {"packing", "resize_vocab"}
    assert DpoParameters.model_fields.keys() - SftParameters.model_fields.keys() == {"beta", "loss_type"}
    assert SftParameters.model_fields.keys() - DpoParameters.model_fields.keys() == sft_alone


@pytest.mark.parametrize(
    ("raw", "key", "what"),
    [
        ({"pretrainedModelType": "llama"}, "pretrainedModelType", "does not say how to train"),
        ({"sfft.max_length": "128"}, "sfft.max_length", "sfft.max_length: without effect in sft/llama2"),
        ({"sfft.int.max_length": "128"}, "sfft.int.max_length", "without effect"),
        ({"pretrainedModelType": "dpo/"}, "pretrainedModelType", "does not say how to train"),
        ({"pretrainedModelType": "dpo/a", "sft.lora_rank": "8"}, "sft.lora_rank", "without effect in dpo/a"),
        ({"pretrainedModelType": "dpo/a", "dpo.beta": "0"}, "dpo.beta", "is out of range"),
        ({"pretrainedModelType": "dpo/a", "dpo.packing": "true"}, "dpo.packing", "is not used here"),
        ({"pretrainedModelType": "dpo/a", "dpo.resize_vocab": "true"}, "dpo.resize_vocab", "is not used here"),
        ({"pretrainedModelType": "dpo/a", "dpo.finetuning_type": "full"}, "dpo.finetuning_type", "as the reference"),
        ({"pretrainedModelType": "dpo/a", "dpo.finetuning_type": "x"}, "dpo.finetuning_type", "is not allowed"),
        (
            {"pretrainedModelType": "sfft/a", "sft.lora_rank": "8"},
            "sft.lora_rank",
            "without effect in sfft/a",
        ),
        ({"inputTable": "t", "localDataDir": "d"}, "localDataDir", "both given"),
        ({"name": "a b"}, "name", "is not a name for a job"),
        ({"name": "../a"}, "name", "is not a name for a job"),
        ({"deepspeedConfig": '{\n "a": 1,\n}'}, "deepspeedConfig", "at line 3, column 1 of the value"),
        ({"deepspeedConfig": "[1]"}, "deepspeedConfig", "is not a JSON object"),
        ({"sft.learning_rate": "0"}, "sft.learning_rate", "is out of range"),
        ({"sft.adam_beta2": "1"}, "sft.adam_beta2", "is out of range"),
        ({"sft.logging_stepz": "3"}, "sft.logging_stepz", "is not a known parameter"),
        ({"sft.push_to_hub": "1"}, "sft.push_to_hub", "is not used here"),
        ({"sft.lr": "1e-4"}, "sft.lr", "is not used here"),
        ({"sft.int.learning_rate": "1e-4"}, "sft.int.learning_rate", "sft.learning_rate is a float"),
        ({"sft.int.num_train_epochs": "1.5"}, "sft.int.num_train_epochs", "is not a whole number"),
        ({"sft.string.num_train_epochs": "1"}, "sft.string.num_train_epochs", "string is no type"),
    ],
)
def test_what_cannot_be_trained_is_refused(raw, key, what):
    found = problem(TrainParameters, SFT | raw)
    assert found.key == key
    assert what in found.what


def test_a_deepspeed_configuration_is_json_or_a_dict():
    config = {"zero_optimization": {"stage": 3}, "lr": 1e-8}
    for given in (config, json.dumps(config)):
        assert read(TrainParameters, SFT | {"deepspeedConfig": given}).deepspeed_config == config


def test_data_is_required_only_of_a_caller_that_brings_none():
    read(TrainParameters, SFT | {"localDataDir": "d"}).require_data()
    with pytest.raises(ParameterError, match="there is no data to train on"):
        read(TrainParameters, SFT).require_data()


def test_a_cell_is_routed_by_its_action():
    assert route({"action": "infer"}) == "infer"
    assert route({"action": "finetune"}) == route(SFT) == "finetune"
    assert [route({"action": action}) for action in ACTIONS] == list(ACTIONS)
    with pytest.raises(ParameterError, match="mege is not an action") as caught:
        route({"action": "mege"})
    assert caught.value.do == "did you mean merge?"


@pytest.mark.parametrize(
    ("action", "raw", "key", "what"),
    [
        ("merge", {}, "localModelDir", "localModelDir is missing"),
        ("merge", {"localModelDir": "a", "dtype": "int8"}, "dtype", "is not allowed"),
        ("merge", {"localModelDir": "a", "adapterNameOrPath": "b"}, "adapterNameOrPath", "is given twice"),
        ("convert", {"checkpoint_dir": "a"}, "checkpoint_dir", "is not a known parameter"),
        ("evaluate", {"localModelDir": "a"}, "inputTable", "inputTable is missing"),
        (
            "evaluate",
            {"localModelDir": "a", "inputTable": "t", "max_new_tokens": "0"},
            "max_new_tokens",
            "out of range",
        ),
    ],
)
def test_what_an_action_cannot_use_is_refused(action, raw, key, what):
    found = problem(ACTIONS[action], {"action": action, **raw})
    assert found.key == key
    assert what in found.what


def test_the_names_of_the_first_documents_are_taken():
    merge = read(
        ACTIONS["merge"], {"adapterNameOrPath": "a", "modelNameOrPath": "b", "savePath": "c", "model": "command"}
    )
    assert (merge.adapter, merge.base, merge.target) == ("a", "b", "c")
    raw = {
        "checkpointDir": "a",
        "modelNameOrPath": "b",
        "savePath": "c",
        "tag": "step-4",
        "pretrainedModelType": "llama2",
    }
    convert = read(ACTIONS["convert"], raw)
    assert (convert.checkpoint, convert.base, convert.target, convert.tag) == ("a", "b", "c", "step-4")


def test_models_are_listed_with_commas_or_as_a_list():
    for given in ("a, b/c,d", ["a", "b/c", "d"]):
        evaluate = read(ACTIONS["evaluate"], {"localModelDir": given, "inputTable": "t"})
        assert evaluate.names == ["a", "b/c", "d"]
    assert evaluate.asks
    assert not read(ACTIONS["evaluate"], {"localModelDir": "a", "inputTable": "t", "metric": "none"}).asks


def test_a_mode_resets_every_setting_and_a_setting_changes_one():
    first = configure(SetupSettings(), "single", {"num_gpus": "2", "OWNER": "william"})
    then = configure(first, None, {"num_cpus": "0.5"})
    assert (then.num_gpus, then.owner, then.num_cpus) == (2, "william", 0.5)
    again = configure(then, "sft", {"maxConcurrency": "3"})
    assert (again.num_gpus, again.num_cpus, again.max_concurrency) == (1, None, 3)
    assert again.owner == SetupSettings().owner


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_made_of_known_settings(mode):
    assert configure(SetupSettings(), mode, {}).num_gpus == 1


@pytest.mark.parametrize(
    ("mode", "text"),
    [("data", "DataFrames"), ("retrieval", "not needed here"), ("singel", "did you mean single?")],
)
def test_a_mode_that_is_none_says_why(mode, text):
    with pytest.raises(ParameterError, match=text):
        configure(SetupSettings(), mode, {})


def test_a_problem_is_shown_with_a_caret_at_its_assignment():
    text = 'pretrainedModelType="sft/llama2" and localModelDir="m"\nand `sft.int.lora_rank`="-1"'
    run = parse_run(text)
    with pytest.raises(ParameterError) as caught:
        read(TrainParameters, {a.key: a.value for a in run.parameters})
    shown = at_the_caret(caught.value, text, run).render()
    assert shown[0] == 'LanguageError: sft.int.lora_rank="-1" is out of range'
    assert shown[1:4] == ["line 2, column 5:", '    and `sft.int.lora_rank`="-1"', "        " + "^" * 24]


def test_a_wrong_mode_is_shown_with_a_caret():
    text = "\nsingel\nnum_gpus=2"
    setup = parse_setup(text)
    with pytest.raises(ParameterError) as caught:
        configure(SetupSettings(), setup.mode, {a.key: a.value for a in setup.settings})
    assert at_the_caret(caught.value, text, setup).where == "line 2, column 1:\n    singel\n    ^^^^^^"


@pytest.mark.parametrize("group", GROUPS)
def test_help_has_one_line_a_key(group):
    head, _, *lines = help_text(group).splitlines()
    assert head.split()[:4] == ["key", "type", "default", "unit"]
    assert len(lines) >= 2
    assert all(line.startswith(f"{group}.") for line in lines) == (group in methods())


def test_help_of_an_unknown_group_suggests_one():
    with pytest.raises(ByzerError, match="did you mean setup"):
        help_text("setpu")


@pytest.mark.parametrize("declaration", [SetupSettings, *ACTIONS.values()])
def test_every_key_is_documented_in_one_line(declaration):
    for doc in describe(declaration):
        assert doc.doc, doc.name
        assert "\n" not in doc.doc
        assert len(doc.doc) <= 90


@pytest.mark.parametrize("spelling", ["quatization", "quantization"])
@pytest.mark.parametrize(
    ("value", "read_as"), [("nf4", "nf4"), ("NF4", "nf4"), (8, "8"), ("4", "4"), (False, "false"), ("False", "false")]
)
def test_both_spellings_of_quantization_reach_the_adapter(spelling, value, read_as):
    raw = {"udfName": "c", "localModelDir": "m", spelling: value}
    parameters = read(InferParameters, raw)
    assert parameters.quantization == read_as
    assert as_strings(parameters, raw)[spelling] == read_as


@pytest.mark.parametrize("written", ["yes", "1", "True", True, "on"])
def test_an_adapter_gets_one_form_of_a_boolean(written):
    raw = {"udfName": "c", "localModelDir": "m", "trust_remote_code": written, "infer.bool.load_in_4bit": written}
    texts = as_strings(read(InferParameters, raw), raw)
    assert texts == {
        "udfName": "c",
        "localModelDir": "m",
        "trust_remote_code": "true",
        "infer.bool.load_in_4bit": "true",
    }


def test_options_of_an_engine_or_an_endpoint_go_through_as_they_are():
    raw = {"udfName": "c", "pretrainedModelType": "saas/openai", "saas.base_url": "http://h", "saas.max.retries": 3}
    raw |= {"backend.gpu_memory_utilization": "0.8", "backend.enforce_eager": True}
    assert as_strings(read(InferParameters, raw), raw) == {
        **raw,
        "saas.max.retries": "3",
        "backend.enforce_eager": "true",
    }


def test_contradicting_quantizations_are_refused():
    raw = {"udfName": "c", "localModelDir": "m", "quatization": "8", "infer.bool.load_in_4bit": "true"}
    found = problem(InferParameters, raw)
    assert (found.key, found.do) == ("infer.bool.load_in_4bit", "keep one of them")


def test_keys_of_byzers_jvm_are_taken_with_a_note():
    keys = ("runIn", "schema", "pythonExec", "dataMode", "standalone")
    settings = configure(SetupSettings(), "single", dict.fromkeys(keys, "driver"))
    said = notes(settings)
    assert [note.partition(":")[0] for note in said] == list(keys)
    assert all("without meaning here: " in note for note in said)
    assert notes(configure(SetupSettings(), "single", {"num_gpus": "2"})) == []


def test_a_note_may_be_of_one_value_only():
    paged = read(TrainParameters, SFT | {"sft.optim": "paged_adamw_32bit"})
    assert notes(paged) == [
        "sft.optim: paged where the workers have GPUs; on CPUs it is adamw_torch, which computes the same"
    ]
    assert notes(read(TrainParameters, SFT | {"sft.optim": "sgd"})) == []


def test_custom_resources_are_settings_of_their_own():
    first = configure(SetupSettings(), None, {"resource.accelerator": "0.5", "workerMaxConcurrency": "4"})
    then = configure(first, None, {"resource.tpu-v4": 1, "load_balance": "round_robin"})
    conf = then.as_sys_conf()
    assert (conf["resource.accelerator"], conf["resource.tpu-v4"]) == ("0.5", "1.0")
    assert (conf["workerMaxConcurrency"], conf["masterMaxConcurrency"], conf["load_balance"]) == (
        "4",
        "1000",
        "round_robin",
    )
    assert "resource" not in conf
    assert "resource.tpu-v4" not in configure(then, "single", {}).as_sys_conf()
    assert problem(SetupSettings, {"resource.gpu": "-1"}).what == 'resource.gpu="-1" is out of range'


@pytest.mark.parametrize(
    ("raw", "key", "what"),
    [
        (
            {"sft.save_strategy": "epoch", "sft.int.save_steps": "3"},
            "sft.int.save_steps",
            "save_steps is without effect",
        ),
        ({"sft.eval_strategy": "no", "sft.eval_steps": 3, "sft.eval_ratio": 0.1}, "sft.eval_steps", "without effect"),
        ({"sft.load_best_model_at_end": "true"}, "sft.load_best_model_at_end", "there is no data to evaluate on"),
        ({"sft.evaluation_strategy": "epoch"}, "sft.evaluation_strategy", "there is no data to evaluate on"),
        ({"evalTable": "e", "sft.eval_ratio": "0.1"}, "evalTable", "evalTable and sft.eval_ratio are both given"),
        ({"sft.lr_scheduler_kwargs": '{"power": 2}'}, "sft.lr_scheduler_kwargs", "cosine has no option power"),
        ({"sft.optim": "lion_8bit"}, "sft.optim", 'sft.optim="lion_8bit" is not allowed'),
        ({"sft.int.hub_token": "3"}, "sft.int.hub_token", "sft.hub_token is not used here"),
        ({"sft.max_steps": "0"}, "sft.max_steps", "out of range"),
        ({"sft.float.max_steps": "3"}, "sft.float.max_steps", "sft.float.max_steps says float"),
        ({"sft.save_steps": "often"}, "sft.save_steps", "is not a whole number"),
        ({"sft.group_by_length": "maybe"}, "sft.group_by_length", "is not true or false"),
    ],
)
def test_training_arguments_that_cannot_be_used_are_told_by_name(raw, key, what):
    found = problem(TrainParameters, SFT | raw)
    assert found.key == key
    assert what in found.what


def test_what_only_the_other_method_has_is_refused_with_its_counterpart():
    assert problem(TrainParameters, SFT | {"sft.max_length": "8"}).do == "write max_seq_length"
    found = problem(TrainParameters, {**SFT, "pretrainedModelType": "sfft/a", "sfft.bool.group_by_length": "true"})
    assert (found.what, found.do) == (
        "sfft.group_by_length is not used here",
        "leave it out: all rows have max_length tokens",
    )


def test_a_mistyped_action_is_the_only_problem():
    with pytest.raises(ParameterError) as caught:
        route({"ation": "infer", "udfName": "x"})
    assert [(problem.key, problem.do) for problem in caught.value.problems] == [("ation", "did you mean action?")]
