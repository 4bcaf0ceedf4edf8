# Two commands do everything: `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 3  # processes that share the tests out, file by file; half of their time they wait for one another
READY := $(VENV)/.ready

# Where it is set, each of the hundreds of processes that tests start compiles all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint format types check slow gpu fast clean setup
.DEFAULT_GOAL := help

help:  ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY)  ## calibrate this machine, predict, train for real, print both side by side
	$(BIN)/aladdin demo

test: lint types check  ## everything that must hold before a change is taken

lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## bring the sources into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

check: $(READY)  ## the tests, without the long ones
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

slow: $(READY)  ## the long tests
	$(BIN)/python -m pytest -q -m "slow and not gpu"

gpu: $(READY)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

fast: $(READY)  ## compile the simulator's innermost modules (needs a C compiler); records stay the same
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fast]'
	$(BIN)/python -m sim.compiling

setup: $(READY)  ## the virtual environment alone

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "aladdin needs Python 3.11 or later; say which with: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[all,dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # on all cores; some packages ship what is no Python
	touch $@

clean:  ## remove what was made, the virtual environment included
	rm -rf sim/compiled-* sim/.compiled-* $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
