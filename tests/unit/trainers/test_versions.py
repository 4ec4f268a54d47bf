"""Nodes whose libraries differ are refused with what differs."""

import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_trainers.versions import check_versions, installed_versions

OURS = {"python": "3.11.7", "torch": "2.13.0+cpu", "peft": "0.21.2"}


def test_the_same_versions_pass_whatever_the_build_and_pythons_patch_level() -> None:
    check_versions(OURS, {"a": OURS, "b": OURS | {"torch": "2.13.0+cu130", "python": "3.11.2"}})
    check_versions(installed_versions(), {"here": installed_versions()})


@pytest.mark.parametrize(
    ("theirs", "what"),
    [
        ({"torch": "2.12.1"}, r"torch 2\.12\.1 \(here 2\.13\.0\+cpu\)"),
        ({"python": "3.12.0"}, r"python 3\.12\.0 \(here 3\.11\.7\)"),
        ({"peft": "missing"}, r"peft missing \(here 0\.21\.2\)"),
    ],
)
def test_what_differs_is_listed_with_its_node(theirs: dict[str, str], what: str) -> None:
    with pytest.raises(ByzerError, match=f"a worker's node has other versions: {what}") as caught:
        check_versions(OURS, {"good": OURS, "0123456789abcdef": OURS | theirs})
    assert caught.value.where == "node 0123456789ab"
