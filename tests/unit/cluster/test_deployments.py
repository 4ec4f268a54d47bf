"""Whose model a name means, with what Serve says replaced."""

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.cluster import deployments
from byzerllm_magics.cluster.deployments import Deployment


@pytest.fixture(autouse=True)
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [Deployment("chat", "anna", "RUNNING", 1, 3.0), Deployment("story", "me", "RUNNING", 1, 2.0)]
    monkeypatch.setattr(
        deployments, "listed", lambda owner=None: [model for model in models if owner in (None, model.owner)]
    )


def test_ones_own_model_is_found_with_or_without_its_owner() -> None:
    assert deployments.get("story", "me") == deployments.get("me/story", "me") == deployments.last("me")


@pytest.mark.parametrize("name", ["chat", "anna/chat"])
def test_somebody_elses_model_is_refused_with_the_setting_that_would_help(name: str) -> None:
    with pytest.raises(ByzerError) as caught:
        deployments.get(name, "me")
    assert caught.value.what == "the model 'chat' belongs to anna, and you are me"
    assert "owner=anna" in caught.value.do


def test_without_a_model_of_ones_own_the_others_are_named_as_such() -> None:
    with pytest.raises(ByzerError) as caught:
        deployments.last("bob")
    assert caught.value.what == "no model is deployed"
    assert caught.value.where == "you are bob, and all there is belongs to others: anna/chat, me/story"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ByzerError, match="no model 'stori'") as caught:
        deployments.get("stori", "me")
    assert caught.value.where == "deployed: story"
    assert 'did you mean "story"' in caught.value.do
