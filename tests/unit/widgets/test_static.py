import hashlib
import json
from pathlib import Path

import pytest

import byzerllm_magics.widgets
from byzerllm_magics.widgets.chat import ChatView
from byzerllm_magics.widgets.job_card import JobCard
from byzerllm_magics.widgets.loss_chart import LossChart

WIDGETS = Path(byzerllm_magics.widgets.__file__).parent
MANIFEST = json.loads((WIDGETS / "static" / "manifest.json").read_text())


@pytest.mark.parametrize(("kind", "folder"), [("sources", "src"), ("built", "static")])
def test_the_bundles_are_built_from_the_sources_beside_them(kind, folder):
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (WIDGETS / folder).iterdir()
        if path.suffix in {".js", ".mjs", ".css", ".txt"} or (kind == "sources" and path.suffix == ".json")
    }
    assert digests == MANIFEST[kind], "run `npm ci && npm run build` in byzerllm_magics/widgets/src"


def test_every_library_in_a_bundle_has_its_licence_beside_it():
    licences = (WIDGETS / "static" / "THIRD-PARTY-LICENSES.txt").read_text()
    dependencies = json.loads((WIDGETS / "src" / "package.json").read_text())["dependencies"]
    for name, version in dependencies.items():
        assert f"{name} {version} (" in licences


def test_the_lock_file_names_no_registry():
    assert '"resolved"' not in (WIDGETS / "src" / "package-lock.json").read_text()


@pytest.mark.parametrize("view", [LossChart, JobCard, ChatView])
def test_a_view_brings_its_script_and_style_and_loads_nothing_from_elsewhere(view):
    widget = view()
    assert "export{" in widget._esm
    assert ".byzer-view" in widget._css
    assert "import(" not in widget._esm
    assert "@import" not in widget._css
    assert "url(http" not in widget._css
