import subprocess
import sys

import pytest

from byzerllm_adapters import registry
from byzerllm_adapters.errors import ByzerError


@pytest.mark.parametrize("prefix", ["", *(f"{method}/" for method in registry.METHODS)])
@pytest.mark.parametrize("name", registry.FAMILIES)
def test_every_family_is_found_and_is_whole(prefix, name):
    adapter = registry.find(prefix + name)
    for function in ("init_model", "load_tokenizer", "load_model", "stream_chat"):
        assert callable(getattr(adapter, function))


def test_llama2_differs_from_the_default_in_its_template():
    assert "[INST]" in registry.find("llama2").DEFAULT_TEMPLATE
    assert "[INST]" not in registry.find("llama").DEFAULT_TEMPLATE


def test_an_unknown_family_is_refused_with_the_nearest_and_the_list():
    with pytest.raises(ByzerError) as caught:
        registry.find("sft/Lama2")
    assert "did you mean 'llama2'" in str(caught.value)
    assert "auto, llama, llama2" in str(caught.value)


def test_a_module_of_the_users_is_an_adapter(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_1.py").write_text("def init_model(model_dir, infer_params={}, sys_conf={}): return 1, 2")
    (tmp_path / "mine_2.py").write_text("")
    (tmp_path / "mine_3.py").write_text("import not_there_at_all")
    assert registry.find("sft/custom/mine_1").init_model("x") == (1, 2)
    with pytest.raises(ByzerError, match="has no init_model"):
        registry.find("custom/mine_2")
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        registry.find("custom/mine_3")
    for nowhere in ("custom/mine_4", "custom/mine_1.deeper"):
        with pytest.raises(ByzerError, match="there is no module"):
            registry.find(nowhere)
    for name in ("custom/", "custom/.relative"):
        with pytest.raises(ByzerError, match="not the name of a module"):
            registry.find(name)


def test_light_modules_import_nothing_heavy():
    code = (
        "import sys, byzerllm_adapters, byzerllm_adapters.engines, byzerllm_adapters.contract\n"
        "import byzerllm_adapters.registry, byzerllm_adapters.rows, byzerllm_adapters.conversations\n"
        "heavy = {'torch', 'ray', 'transformers', 'pandas', 'matplotlib', 'pydantic', 'lark', 'duckdb'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
