# Two commands on a fresh machine: `make quickstart` and `make test`. Needs git, make, python3 >= 3.11 with venv.
PYTHON ?= python3
VENV ?= .venv
# A package index for torch, e.g. https://download.pytorch.org/whl/cpu (see TORCH_INDEX in the README)
TORCH_INDEX ?=
TORCH ?= torch==2.13.0
TORCH_STAMP := $(VENV)/.torch-$(shell printf '%s' '$(TORCH) $(TORCH_INDEX)' | cksum | cut -d' ' -f1)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
OUT ?= out

.PHONY: quickstart lab test check bench bench-gpu docs clean browser requirements

quickstart: $(VENV)/.installed
	$(BIN)/python -m byzerllm_magics.headless notebooks/quickstart.ipynb --output $(OUT)/quickstart
	@echo "open it in JupyterLab: make lab"

lab: $(VENV)/.installed
	$(BIN)/jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) $(if $(wildcard $(OUT)/quickstart/quickstart.ipynb),$(OUT)/quickstart/quickstart.ipynb,notebooks/quickstart.ipynb)

# All of it; `-ra` in pyproject.toml prints the reason of every skip.
test: check browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow tests/unit
	$(BIN)/python -m pytest tests/cluster tests/browser tests/test_quickstart.py

# The quick part: lint, types, layers, unit tests but the slow ones.
check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" tests/unit

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/run.py

# On a machine with a GPU: tokens per second and MFU with models of 1 B and 8 B parameters.
bench-gpu: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/gpu.py

# What is made from declarations; tests/unit/parameters/test_docs.py fails when it is stale.
docs: $(VENV)/.installed
	$(BIN)/python -m byzerllm_magics.parameters

requirements:
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON) (Debian, Ubuntu: apt-get install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "missing: venv (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }

$(VENV)/bin/python: | requirements
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: a range that another package asks for would take gigabytes of CUDA
$(TORCH_STAMP): | $(VENV)/bin/python
	@echo "installing $(TORCH) …"
	$(PIP) -c constraints.txt $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(TORCH_STAMP)
	@echo "installing byzerllm-magics and what it needs (minutes, the first time) …"
	$(PIP) -c constraints.txt -e '.[notebook]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@

# Debian's Chromium for the browser tests
browser:
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing chromium …" && apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium fonts-noto-cjk >/dev/null; \
	  else echo "missing: chromium (as root: apt-get install chromium fonts-noto-cjk); the browser tests will be skipped"; fi; }

clean:
	rm -rf $(VENV) $(OUT) build dist *.egg-info
