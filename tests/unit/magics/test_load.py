"""Loading is light and can be undone."""

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = (
    "torch", "ray", "transformers", "pandas", "pydantic", "lark", "numpy", "matplotlib", "ipywidgets", "anywidget",
    "deepspeed", "peft", "pyarrow", "duckdb", "sqlglot", "psutil",
)  # fmt: skip


def imported_by(code: str) -> list[str]:
    """Which heavy modules a fresh process has after running the code in a real shell."""
    code = (
        "import json, sys\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "config = Config()\n"
        "config.HistoryManager.enabled = False\n"
        "shell = InteractiveShell.instance(config=config)\n"
        f"bare = set(sys.modules)\n{code}\n"
        f"print('\\n' + json.dumps([m for m in {HEAVY!r} if m in sys.modules and m not in bare]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "code",
    [
        "shell.run_line_magic('load_ext', 'byzerllm_magics')",
        "shell.run_line_magic('load_ext', 'byzerllm_magics')\nshell.run_cell('%byzerllm attach --help')\n"
        "assert not shell.run_cell('%llm_chat --help').error_in_exec",
        "import byzerllm_magics.magics, byzerllm_magics.magics.dispatch, byzerllm_magics.magics.llm_chat",
        "import byzerllm_magics.cluster, byzerllm_magics.language, byzerllm_magics.parameters, byzerllm_magics.widgets",
    ],
    ids=["load_ext", "help", "magics", "packages"],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert imported_by(code) == []


def test_the_list_of_heavy_modules_would_be_noticed() -> None:
    assert imported_by("import numpy, psutil") == ["numpy", "psutil"]


def test_both_magics_exist_for_lines_and_cells_until_unloaded(shell: Any) -> None:
    for kind in ("line", "cell"):
        assert {"byzerllm", "llm_chat"} <= shell.magics_manager.magics[kind].keys()
    shell.run_line_magic("unload_ext", "byzerllm_magics")
    for kind in ("line", "cell"):
        assert not {"byzerllm", "llm_chat"} & shell.magics_manager.magics[kind].keys()
    shell.run_line_magic("load_ext", "byzerllm_magics")
    assert "byzerllm" in shell.magics_manager.magics["line"]


def test_loading_prints_nothing_and_defines_nothing(shell: Any, run: Any) -> None:
    before = set(shell.user_ns)
    run("%unload_ext byzerllm_magics")
    assert run("%load_ext byzerllm_magics").text == ""
    assert {name for name in set(shell.user_ns) - before if not name.startswith("_")} == set()
