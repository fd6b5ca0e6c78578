# Each target sets up what it needs: `make demo` on a fresh clone is enough.
#   make demo    the whole pipeline, small, on a CPU
#   make test    the test suite
#   make lint    format, lint and types
#   make bench   the timed benchmarks; IONBED_STORE=FOLDER for real spectra
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCHMARKS := $(sort $(wildcard benchmarks/*.py))

export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help:
	@sed -n '2,6s/^# *//p' Makefile

# Torch and setuptools go first and by their exact pins: torch because a later step must not swap its build (CPU, CUDA)
# for another, setuptools because the package is then built with it instead of with whatever is newest that day.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq setuptools $$(grep '^torch==' constraints.txt) -c constraints.txt
	$(BIN)/python -m pip install -qq --no-build-isolation -e '.[dev]' -c constraints.txt
	@mkdir -p $(VENV)/src && ln -sfn ../.. $(VENV)/src/ionbed  # for mypy, see pyproject.toml
	@touch $@

demo: $(READY)
	$(BIN)/ionbed demo

# One process for each core; the tests of a file stay together, for what they share, and files begin in their order.
test: $(READY)
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(READY)
	@set -e; for benchmark in $(BENCHMARKS); do echo "== $$benchmark"; $(BIN)/python $$benchmark; done

clean:
	rm -rf $(VENV) build dist ionbed.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
