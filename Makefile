# `make chat` makes a small model on this machine and talks with it; `make test` checks everything.
#
# Variables:  PYTHON     the environment to use (default: the active one, else .venv, which is made when missing)
#             BASE       the Python that makes .venv
#             PIP_FLAGS  more words for pip, such as the address of an index that has torch without CUDA
#             MODEL      for chat: a model folder to talk with instead of the built-in model
#             PYTEST     more words for pytest

BASE ?= python3
VENV ?= .venv
MODEL ?=
PIP_FLAGS ?=
PYTEST ?=

ifdef VIRTUAL_ENV
PYTHON ?= $(VIRTUAL_ENV)/bin/python
endif
PYTHON ?= $(VENV)/bin/python

# Only our own .venv is installed into; an environment that was given is used as it is.
ifeq ($(PYTHON),$(VENV)/bin/python)
USER_READY := $(VENV)/.user
DEV_READY := $(VENV)/.dev
endif

.PHONY: help chat install test format lint types imports unit test-parallel test-scale test-clients test-arm docs reference \
        fuzz kills sanitize bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

chat: $(USER_READY) ## make the built-in model (about 3 minutes, once), then talk with it
	$(PYTHON) -m chatsmith chat $(MODEL)

install: $(DEV_READY) ## everything for working on chatsmith, in .venv

test: format lint types imports unit ## format, lint, types, import rules, tests and the snippets of the docs

format: $(DEV_READY)
	$(PYTHON) -m ruff format --check .

lint: $(DEV_READY)
	$(PYTHON) -m ruff check .

types: $(DEV_READY)
	$(PYTHON) -m mypy

imports: $(DEV_READY)
	$(dir $(PYTHON))lint-imports

unit: $(DEV_READY)
	$(PYTHON) -m pytest $(PYTEST)

test-parallel: $(DEV_READY) ## every layout × every shape against one process, minutes
	$(PYTHON) -m pytest tests/parallel/test_parity.py -m slow $(PYTEST)

test-scale: $(DEV_READY) ## the rest of many processes: resuming, two hosts, compiled layers, memory as planned; an hour
	$(PYTHON) -m pytest tests/parallel -m slow --ignore tests/parallel/test_parity.py $(PYTEST)

# Other people's clients bring pytest plugins and much else: they live in an environment of their own.
test-clients: ## install other people's clients (minutes) and drive the server with them
	test -x .venv-clients/bin/python || $(BASE) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet $(PIP_FLAGS) -e ".[all,test,clients]"
	HF_HUB_OFFLINE=1 .venv-clients/bin/python -m pytest tests/serve/clients $(PYTEST)

docs: $(DEV_READY) ## run the snippets of the README and the docs
	$(PYTHON) -m pytest tests/test_docs.py $(PYTEST)

reference: $(DEV_READY) ## write docs/reference again from the code
	$(PYTHON) tools/reference.py

SECONDS ?= 600
fuzz: $(DEV_READY) ## read damaged model files for SECONDS (ten minutes)
	$(PYTHON) tests/fuzz/readers.py --seconds $(SECONDS)

POINTS ?= 100
kills: $(DEV_READY) ## kill runs of two processes at POINTS random points; all must end as if left alone
	$(PYTHON) tests/parallel/kills.py --points $(POINTS)

test-arm: $(DEV_READY) ## the kernels of generation, cross-compiled and run by an emulated Arm processor, minutes
	$(PYTHON) -m pytest tests/kernels/test_arm.py -m "slow or not slow" -rs $(PYTEST)

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -g -O1
SANITIZED = ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"
BUILT = -c 'import sys; from chatsmith.kernels$(1) import build; sys.exit(None if build.library() else build.status())'
# Kernels that could not be built would only skip their tests: so that is asked first.
sanitize: export CHATSMITH_SANITIZE := 1
sanitize: export CHATSMITH_CFLAGS := $(SANITIZE)
sanitize: export CHATSMITH_CACHE := $(CURDIR)/build/sanitize
sanitize: $(DEV_READY) ## the tests of the kernels, built with the address and undefined sanitizers
	$(SANITIZED) $(PYTHON) $(call BUILT,.infer)
	$(SANITIZED) $(PYTHON) $(call BUILT)
	$(SANITIZED) $(PYTHON) -m pytest tests/kernels/test_native.py tests/kernels/test_layer.py \
	    tests/kernels/test_infer.py -p no:cacheprovider $(PYTEST)

bench: $(USER_READY) ## list the benchmarks
	@for file in bench/[a-z]*.py; do printf '%-32s %s\n' "$(PYTHON) $$file" "$$(sed -n '1s/^"""//p' $$file)"; done

clean: ## remove the environments and caches (no models)
	rm -rf $(VENV) .venv-clients .ci-venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist

$(VENV)/bin/python:
	$(BASE) -m venv $(VENV)

$(VENV)/.user: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet $(PIP_FLAGS) -e .
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet $(PIP_FLAGS) -e ".[all,test,lint]"
	touch $@ $(VENV)/.user
