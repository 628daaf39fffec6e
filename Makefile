# Everything that is done to this repository. `make help` lists it.

SHELL := bash
VENV := .venv
PY := $(VENV)/bin/python
PORT ?=
QUICK ?=
ARGS ?=
# The first Python that is new enough, else whichever there is, for preflight.py to refuse.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null \
	&& echo $$p && exit; done; echo python3)

CREATED := $(VENV)/created
INSTALLED := $(VENV)/installed
DEV_INSTALLED := $(VENV)/dev-installed
PIP := $(PY) -m pip install --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help serve setup test test-quality lint fix bench lock clean

help: ## this list
	@grep -hE '^[a-z%<>-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## /\1\t/' | expand -t 16

serve: $(INSTALLED) ## set up what is missing, then serve as serve_config.yaml says (PORT=9000, ARGS=--help)
	@$(PY) -m weights fetch
	@$(PY) -m launcher $(if $(PORT),--port $(PORT)) $(ARGS)

setup: $(DEV_INSTALLED) ## the virtual environment with everything for development
	@$(PY) -m weights fetch

test: setup ## the whole suite (ARGS="-k name" to choose)
	$(PY) -m pytest $(ARGS)

test-quality: $(DEV_INSTALLED) ## what a better chat model does with tools and schemas (1.1 GB to fetch)
	@$(PY) -m weights fetch qwen2.5-coder-1.5b-instruct
	$(PY) -m pytest -m quality $(ARGS)

lint: $(DEV_INSTALLED) ## style, format and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

fix: $(DEV_INSTALLED) ## mend what ruff can mend
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# The comparisons that the goals are about, in three quarters of an hour; QUICK=1 in eight minutes.
BENCHES := footprint graph_overhead embeddings_http llama_server long_prompt ocr anomaly_http wake storm overload
QUICK_BENCHES := embeddings_http llama_server storm

bench: $(DEV_INSTALLED) ## the main benchmarks and docs/performance.md (QUICK=1: few); `make bench-<name> ARGS=...` runs one
	@$(PY) -m weights fetch
	@for name in $(if $(filter-out 0,$(QUICK)),$(QUICK_BENCHES),$(BENCHES)); do \
		echo "== $$name"; QUICK=$(QUICK) $(PY) benchmarks/$$name.py $(ARGS) || exit; done
	@cd benchmarks && ../$(PY) -m harness.page

bench-%: $(DEV_INSTALLED)
	@$(PY) benchmarks/$(subst -,_,$*).py $(ARGS)

lock: ## choose the newest versions again and write constraints.txt
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --disable-pip-version-check -e '.[dev]'
	(sed -n '/^#/p' constraints.txt; build/lock/bin/python -m pip freeze --exclude-editable \
		--exclude setuptools | sed 's/+cpu$$//') > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove the virtual environment and the caches (not the weights)
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(CREATED):
	@$(PYTHON) launcher/preflight.py
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(INSTALLED): $(CREATED) pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e .
	@touch $@

$(DEV_INSTALLED): $(INSTALLED)
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
