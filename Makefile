# The commands of the house. `make demo` and `make test` set themselves up; nothing else is needed but Python 3.11 and pip.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
WORKERS ?= 2
# Data-Juicer has pins of its own, so it lives in an environment of its own; any Python that has it may be named here.
DATA_JUICER_PYTHON ?= $(abspath $(wildcard .venv-data-juicer/bin/python))

.PHONY: setup fmt check test test-all demo docs wheel-test bench data-juicer-venv data-juicer-check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,tracking,metrics,dev]'
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

# Pages that are written from the code: operators, commands, keys. The others are plain Markdown; a test parses their commands.
docs: $(STAMP)
	$(BIN)/python tools/operator_table.py
	$(BIN)/python tools/reference_pages.py

wheel-test: $(STAMP)
	$(BIN)/python tools/wheel_test.py

# Our side alone, or both sides in turn where there is a Python with Data-Juicer. NAMES="text images" runs some.
bench: $(STAMP)
	$(BIN)/python -m benchmarks $(NAMES) $(if $(DATA_JUICER_PYTHON),--data-juicer-python $(DATA_JUICER_PYTHON)) $(ARGS)

data-juicer-venv:
	$(PYTHON) -m venv .venv-data-juicer
	.venv-data-juicer/bin/python -m pip install --quiet --disable-pip-version-check -r tools/data-juicer.txt
	.venv-data-juicer/bin/python -m pip install --quiet --disable-pip-version-check --no-deps imagededup==0.3.3.post2

# Every operator of Data-Juicer once through the adapter, offline, on sample rows; then the tests that need Data-Juicer.
data-juicer-check: $(STAMP)
	@test -n "$(DATA_JUICER_PYTHON)" || { echo "make data-juicer-venv first, or give DATA_JUICER_PYTHON=PATH"; exit 2; }
	$(BIN)/python tools/operator_table.py --record $(DATA_JUICER_PYTHON)
	BETTERSYNTH_DATA_JUICER_PYTHON=$(DATA_JUICER_PYTHON) $(BIN)/python -m pytest -m '' -k data_juicer tests/unit tests/e2e/test_benchmarks.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-data-juicer build dist demo_out .mypy_cache .ruff_cache .pytest_cache .hypothesis
