# The commands of the house. `make demo` and `make test` set themselves up; nothing else is needed but Python 3.11 and pip.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
WORKERS ?= 2

.PHONY: setup fmt check test test-all demo wheel-test clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,tracking,dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/bettersynth demo $(ARGS)

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not gpu and not network' $(ARGS)

wheel-test: $(STAMP)
	$(BIN)/python tools/wheel_test.py

clean:
	rm -rf $(VENV) build dist demo_out .mypy_cache .ruff_cache .pytest_cache .hypothesis
