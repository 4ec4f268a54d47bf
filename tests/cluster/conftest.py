"""What the cluster tests share: a connected session, and one pretraining job that many of them look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.helpers import Observed, corpus_folder, observed, pretraining
from tests.tiny import make_reciter


@pytest.fixture(scope="session")
def session(cluster: object) -> Any:
    """This process's session, owner "tester", two workers a job."""
    from byzerllm_magics.session import Session

    session = Session()
    session.setup("sfft", num_gpus=2, owner="tester")
    return session


@pytest.fixture(scope="session")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared jobs' folders are made."""
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of .txt documents."""
    return corpus_folder(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def pretrained(session: Any, tiny_model: Path, corpus: Path, prefix: Path) -> Observed:
    """Two workers, ZeRO 2, 40 steps, never interrupted; with what was seen on the cluster meanwhile."""
    return observed(session, pretraining(tiny_model, corpus, prefix, name="uninterrupted", stage=2))


@pytest.fixture(scope="session")
def reciter(session: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a deployed model whose answer at temperature 0 takes many seconds."""
    folder = make_reciter(tmp_path_factory.mktemp("models") / "reciter")
    deployment = session.run(action="infer", localModelDir=str(folder), udfName="reciter")
    return str(deployment.name)
