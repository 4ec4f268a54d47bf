"""Groups that take any key besides those declared: a mistyped one is none of these."""

import pytest

from byzerllm_adapters.infer_parameters import InferParameters
from byzerllm_adapters.parameters import ParameterError, notes, read


def problem(declaration, raw):
    with pytest.raises(ParameterError) as caught:
        read(declaration, raw)
    (only,) = caught.value.problems
    return only


@pytest.mark.parametrize("key", ["saas.api_kee", "saas.str.api_kee", "saas.API_KEY", "saas.base_uri"])
def test_a_mistyped_key_of_an_open_group_is_refused(key):
    found = problem(InferParameters, {"udfName": "c", "localModelDir": "m", key: "x"})
    assert found.key == key
    assert found.do in ("did you mean saas.api_key?", "did you mean saas.base_url?")


def test_other_keys_of_an_open_group_are_taken_as_they_are():
    raw = {"udfName": "c", "localModelDir": "m", "saas.region": "x", "saas.name": "y", "backend.names": "z"}
    assert read(InferParameters, raw).saas.model_extra == {"region": "x", "name": "y"}


def test_a_remote_key_is_noted_where_the_model_is_local():
    keys = {"udfName": "c", "localModelDir": "m", "saas.api_key": "x", "saas.region": "y"}
    assert notes(read(InferParameters, keys)) == [
        "saas.api_key: without effect, for the model runs here",
        "saas.region: without effect, for the model runs here",
    ]
    assert notes(read(InferParameters, keys | {"pretrainedModelType": "custom/mine"})) == []
