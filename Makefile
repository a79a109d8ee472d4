# Each complete on a fresh machine: `make search`, `make test`, `make docs` and `make release`.

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/digits
BIN := $(VENV)/bin

.PHONY: search test docs release clean

search: $(VENV)/.installed
	$(BIN)/python -m epe_nas_jax.main --config=configs/digits.py --workdir=$(WORKDIR)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mkdocs build

release: $(VENV)/.installed
	rm -rf dist build/release
	$(BIN)/pip install --quiet build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/release
	build/release/bin/pip install --quiet dist/*.whl
	cd build && release/bin/epe-nas --version && release/bin/epe-nas search --config=fast \
	  --workdir=release/run --config.search.num_samples=20

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

# Real PyTorch networks for tests, without what they pin or would bring along. torchvision of after
# 0.16 does not import beside a PyTorch that it was not compiled for; 0.16 has no Python 3.12.
$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps xautodl==1.0.0 timm==1.0.31 \
	  "torchvision==0.16.2; python_version < '3.12'"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
