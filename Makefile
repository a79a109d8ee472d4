# Two commands, each complete on a fresh machine: `make search` and `make test`.

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/digits
BIN := $(VENV)/bin

.PHONY: search test clean

search: $(VENV)/.installed
	$(BIN)/python -m epe_nas_jax.main --config=configs/digits.py --workdir=$(WORKDIR)

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

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

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
