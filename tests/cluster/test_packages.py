"""A cluster on which our packages are not installed gets them from the kernel that connects."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from byzerllm_magics.cluster import embedded
from tests.cluster.helpers import pretraining, python
from tests.cluster.nodes import end_tree


def bare_environment() -> dict[str, str]:
    """This process's environment without a path to our packages."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """A Python with all libraries of this one but ours."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    packages = Path(
        sysconfig.get_paths(vars={"base": str(tmp_path / "bare"), "platbase": str(tmp_path / "bare")})["purelib"]
    )
    (packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])  # of those in there, none is followed
    found = tmp_path / "bare" / "bin" / "python"
    ours = subprocess.run(
        [found, "-c", "import ray, byzerllm_trainers"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=bare_environment(),
    )
    assert "No module named 'byzerllm_trainers'" in ours.stderr
    return found


@pytest.fixture
def bare_cluster(bare_python: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a cluster of that Python."""
    embedded.ensure_token()
    port = embedded._free_ports(1)[0]
    command = [
        bare_python, "-m", "ray.scripts.scripts", "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}",
        "--include-dashboard=false", "--num-cpus=2", "--block", "--disable-usage-stats",
    ]  # fmt: skip
    head = subprocess.Popen(
        command, env=bare_environment() | embedded.ENVIRONMENT, cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    yield f"127.0.0.1:{port}"
    end_tree(head.pid)
    head.wait()


def test_a_job_trains_on_nodes_without_our_packages(
    bare_cluster: str, tiny_model: Path, corpus: Path, tmp_path: Path
) -> None:
    parameters = pretraining(tiny_model, corpus, tmp_path, name="shipped", stage=0, steps=3)
    code = f"""
import time
from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.session import Session

session = Session()
for attempt in range(60):  # the head is on its way up
    try:
        session.setup("sfft", num_gpus=1, rayAddress="{bare_cluster}")
        session.connect()
        break
    except ByzerError:
        time.sleep(1)
print(session.run({parameters!r}).wait()["status"])
"""
    environment = dict(os.environ) | {"BYZERLLM_STATE": str(tmp_path / "state")}
    done = python(code, environment, seconds=200)
    assert done.stdout.split()[-1:] == ["finished"], done.stderr[-2000:]
