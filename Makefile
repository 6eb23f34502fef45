# `make` without a target lists the targets. Every target installs its own environment: only Python 3.12 or 3.13, pip,
# make and a package index are needed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export UV_PYTHON_DOWNLOADS := never
# Images of containers often forbid it; then each of the many processes would compile the sources of JAX anew: 5 s to
# start in place of 1.6.
export PYTHONDONTWRITEBYTECODE :=
# The pinned uv of requirements-uv.lock: installed by pip, or by any other uv, with its hash checked
UV := .tools/bin/uv
PYTHON := .venv/bin/python
# By way of the environment, where blanks and quotes of any kind stay what they are
export CONFIG ?= configs/demo.py
WORKERS ?= 2
ACCELERATORS := cpu tpu cuda12 cuda13
# What .venv was made for, until another is named
ACCELERATOR ?= $(or $(patsubst .venv/ready-%,%,$(wildcard .venv/ready-*)),cpu)
ifneq ($(words $(ACCELERATOR)) $(filter $(ACCELERATORS),$(ACCELERATOR)),1 $(ACCELERATOR))
$(error ACCELERATOR is "$(ACCELERATOR)". Choose one of: $(ACCELERATORS))
endif
PACKAGES := .venv/ready-$(ACCELERATOR)
READY := .venv/installed
# requirements.lock is the whole environment, with the CPU build of jax; the others are what comes on top
LOCKS := requirements.lock $(patsubst %,requirements-%.lock,$(filter-out cpu,$(ACCELERATOR)))
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
  --no-annotate --no-header
# Without build isolation a source distribution is built with the packages of the lock, whose hashes were checked; with
# it, uv would download and run the newest setuptools of the index.
INSTALL = $(UV) pip install --quiet --no-deps --require-hashes --no-build-isolation
SYNC = $(UV) pip sync --quiet --require-hashes --no-build-isolation

.PHONY: help setup packages add demo chat test slow lint bench chaos libtpu checkers browser languages ray lock clean

help:  ## list the targets
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | awk -F ':.*## *' '{printf "%-9s %s\n", $$1, $$2}'

setup: $(READY)  ## install the environment, .venv, every file checked by its hash; ACCELERATOR=tpu, cuda12 or cuda13 for one
	@echo "setup: ready for $(ACCELERATOR) ($$($(PYTHON) --version), jax $$($(PYTHON) -c 'import jax; print(jax.__version__)'))"

# The clone itself, editable: scripts and notebooks anywhere, and worker processes, can import it.
$(READY): $(PACKAGES) pyproject.toml | $(UV)
	@$(UV) pip install --quiet --python $(PYTHON) --offline --no-deps --editable .
	@touch $(READY)

packages: $(PACKAGES)  # without the clone itself: a layer of the Docker image that changes of the code leave valid

$(PACKAGES): $(LOCKS) | $(UV)
	@echo "setup: .venv from $(LOCKS)"
	@rm -rf .venv
	@$(UV) venv --quiet --no-project --python '>=3.12,<3.14' .venv || { \
	  echo "make: Python 3.12 or 3.13 is needed; found: $$(python3 --version 2>&1)" >&2; exit 1; }
	@sed -n '/^setuptools==/,/[^\]$$/p' requirements.lock | $(INSTALL) --python $(PYTHON) -r -
	@$(SYNC) --python $(PYTHON) $(LOCKS)
	@touch $(PACKAGES)

$(UV): requirements-uv.lock
	@echo "setup: installing $$(sed -n 's/ .*//p;q' requirements-uv.lock) into .tools"
	@rm -rf .tools/uv*
	@if command -v uv >/dev/null; then \
	  uv pip install --quiet --no-config --no-build --require-hashes --target .tools -r requirements-uv.lock; \
	else \
	  python=$$(for p in python3 python python3.13 python3.12; do \
	    if $$p -m pip --version >/dev/null 2>&1; then echo $$p; break; fi; done); \
	  if [ -z "$$python" ]; then echo "make: no uv and no Python with pip found: install either, then run make again" >&2; exit 1; fi; \
	  $$python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --upgrade --only-binary :all: \
	    --require-hashes --target .tools -r requirements-uv.lock; fi
	@touch $(UV)

add: $(READY)  ## install PACKAGE=NAME (or 'NAME NAME') from the package index into .venv; locked versions stay
	@if [ -z "$(PACKAGE)" ]; then echo "make: PACKAGE is empty. Name one: make add PACKAGE=tensorboard" >&2; exit 2; fi
	@$(UV) pip install --python $(PYTHON) --constraints requirements.lock $(PACKAGE)

demo: $(READY)  ## pages -> documents -> tokenizer -> shards -> training -> evaluation -> samples -> report
	@$(PYTHON) -m launch.pretrain "$$CONFIG"

chat: $(READY)  ## the finished demo -> an assistant that answers from the demo's pages; three questions as examples
	@if [ ! -f runs/demo/stages/train.json ]; then echo "make: there is no finished run in runs/demo; first: make demo" >&2; exit 2; fi
	@$(PYTHON) -m launch.index_corpus runs/demo
	@$(PYTHON) -m launch.finetune runs/demo configs/assistant.py
	@$(PYTHON) -m launch.chat runs/assistant --message "What is an astronaut?" --message /reset \
	  --message "Where is Mongolia?" --message /reset --message "What is 365 times 24?"
	@$(PYTHON) -m launch.report runs/assistant
	@echo "To talk to it: $(PYTHON) -m launch.chat runs/assistant, or in a browser: $(PYTHON) -m launch.serve runs/assistant"
	@echo "Training and recorded conversations: runs/assistant/report/index.html"

test: $(READY)  ## the tests, in WORKERS=2 processes
	@$(PYTHON) -m pytest -m "not slow" --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(OPTIONS)

slow: $(READY)  ## the slow tests: more rows of the same laws, kills, several processes; PART=1/8 for a part (docs/tests.md)
	@$(PYTHON) -m pytest -m slow --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  $(addprefix --part=,$(PART)) $(addprefix --changed=,$(CHANGED)) $(OPTIONS)

lint: $(READY)  ## ruff, the type checker, and biome for JavaScript if `make checkers` installed it
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ty check
	@if [ -x .tools/checkers/bin/biome ]; then .tools/checkers/bin/biome lint; fi

bench: $(READY)  ## the benchmarks, one JSON line each (an accelerator: docs/accelerators.md)
	@$(PYTHON) -m tests.bench

chaos: $(READY)  ## kill, cut and damage what can be: the same bytes must come out (2 hours)
	@$(PYTHON) -m tests.chaos

libtpu: $(READY)  ## fetch the compiler for TPUs, for launch.plan (200 MB, into .tools)
	@$(INSTALL) --python $(PYTHON) --target .tools/libtpu -r requirements-tpu.lock
	@echo "libtpu: ready in .tools/libtpu"

checkers: $(READY)  ## fetch what checks the files of launch/cloud and viewer/static: SkyPilot, shellcheck, schemas, biome (520 MB, into .tools)
	@$(UV) venv --quiet --clear --no-project --python $(PYTHON) .tools/checkers
	@$(SYNC) --python .tools/checkers/bin/python requirements-checkers.lock
	@echo "checkers: ready in .tools/checkers"

browser: $(READY)  ## fetch what drives chromium in tests of the window: Playwright, axe-core (160 MB, into .tools)
	@rm -rf .tools/browser
	@$(INSTALL) --python $(PYTHON) --target .tools/browser -r requirements-browser.lock
	@echo "browser: ready in .tools/browser; the browser itself is $${GRISTMILL_CHROMIUM:-$$(command -v chromium || echo 'missing: apt-get install chromium')}"

languages: $(READY)  ## install what splits Chinese, Japanese, Thai and others into words (docs/languages.md; 490 MB)
	@$(INSTALL) --python $(PYTHON) -r requirements-languages.lock
	@echo "languages: ready"

ray: $(READY)  ## install Ray, which runs the data stages on a cluster (docs/engines.md; 214 MB)
	@$(INSTALL) --python $(PYTHON) -r requirements-ray.lock
	@echo "ray: ready"

lock: $(UV)  ## resolve the requirements*.lock files from pyproject.toml again; delete one first to upgrade its packages
	@echo uv | $(COMPILE) - -o requirements-uv.lock
	@$(COMPILE) --group dev pyproject.toml -o requirements.lock
	@for accelerator in $(filter-out cpu,$(ACCELERATORS)); do $(COMPILE) --extra $$accelerator -c requirements.lock \
	  $$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' requirements.lock) pyproject.toml \
	  -o requirements-$$accelerator.lock; done
	@for group in languages ray; do $(COMPILE) --group $$group -c requirements.lock \
	  $$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' requirements.lock) pyproject.toml \
	  -o requirements-$$group.lock; done
	@$(COMPILE) --group pyproject.toml:checkers -o requirements-checkers.lock
	@$(COMPILE) --group pyproject.toml:browser -o requirements-browser.lock

clean:  ## remove the environment and caches (runs/ stays)
	@rm -rf .venv .tools .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +
