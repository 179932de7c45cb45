# One command per job, the same on a laptop and in CI. Only Python 3.11-3.13 and make are needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := infra/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

.PHONY: help install tune test soak unit torture check format bench docs links ui up status env down clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "error: degrain needs Python 3.11 to 3.13, and $(PYTHON) is" \
			"$$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed-stack $(VENV)/.installed

$(VENV)/.installed-stack: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e '.[stack]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) -e '.[dev,bench]'
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed-stack $(VENV)/.installed

install: $(VENV)/.installed  ## make .venv and install degrain into it

tune: $(VENV)/.installed  ## the default study on the embedded photos, about six minutes
	@$(BIN)/python pipelines/tune.py

# These start clusters and jobs of their own and mostly wait; the others share one local cluster.
WAITING := $(addprefix tests/integration/test_,training_faults.py job.py month.py retraining.py \
	mlflow_outage.py mlflow_postgresql.py serve_command.py documented_commands.py mlflow_ui.py)

# The tests of a mark, three groups side by side; at the end, what was skipped for want of programs.
define run_tests
	@logs=$$(mktemp -d); export MISSING_PACKAGES=$$logs/missing; trap 'kill $$unit $$clusters 2> /dev/null; rm -rf $$logs' EXIT; \
	trap 'exit 130' INT TERM HUP; \
	nice -n 5 $(BIN)/python -m pytest -m $(1) tests/unit --numprocesses 2 \
		> $$logs/unit 2>&1 & unit=$$!; \
	$(BIN)/python -m pytest -m $(1) $(WAITING) > $$logs/clusters 2>&1 & clusters=$$!; \
	$(BIN)/python -m pytest -m $(1) tests/integration $(WAITING:%=--ignore=%); status=$$?; \
	wait $$clusters || status=1; wait $$unit || status=1; \
	for group in clusters unit; do \
		if [ $$status = 0 ]; then tail -n 1 $$logs/$$group; else cat $$logs/$$group; fi; \
	done; \
	if [ -s $$logs/missing ]; then \
		echo "tests were skipped; to run them: apt-get install" $$(sort -u $$logs/missing); \
	fi; exit $$status
endef

test: $(VENV)/.installed-dev  ## every promise of README and docs, once
	$(call run_tests,"not soak")

soak: $(VENV)/.installed-dev  ## repetitions, kills, loads, and a month of retraining
	$(call run_tests,soak)

unit: $(VENV)/.installed-dev  ## the quick tests that need no Ray, about a minute
	$(BIN)/python -m pytest tests/unit -m "not slow and not soak" --numprocesses 2

torture: $(VENV)/.installed-dev  ## odd photo files of every kind, compared with libvips and ExifTool
	PYTHONPATH=tests $(BIN)/python tests/torture/run.py $(CASES)

check: $(VENV)/.installed-dev  ## lint, format, types, import order of the layers, manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=platform:models:infra/ray:tests:tests/benchmarks $(BIN)/mypy infra/ray/*.py tests
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/deployment --quiet

format: $(VENV)/.installed-dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench  ## measure speed, as ratios
	$(BIN)/python tests/benchmarks/run.py

docs: $(VENV)/.installed-dev  ## the documentation site, in docs/_build
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build

links: $(VENV)/.installed-dev  ## check the links of the documentation to other sites
	$(BIN)/python -m sphinx -W --keep-going --quiet -b linkcheck docs docs/_build/links

ui: $(VENV)/.installed  ## the MLflow UI on 127.0.0.1, with the address of the newest comparison
	@$(BIN)/python infra/ray/ui.py

# Options of these four, e.g. OPTIONS='--dashboard-port 8266'; `up.py --help` lists them.
STACK := $(BIN)/python infra/ray/up.py

up: $(VENV)/.installed-stack  ## Ray, MLflow and an S3 server on 127.0.0.1
	@$(STACK) up $(OPTIONS)

status: $(VENV)/.installed  ## the state of what `make up` started
	@$(STACK) status $(OPTIONS)

env: $(VENV)/.installed  ## variables for a shell: eval "$$(make -s env)"
	@$(STACK) env $(OPTIONS)

down:  ## end what `make up` started
	@if test -x $(BIN)/python; then $(STACK) down $(OPTIONS); \
	elif test -e runs/stack/servers.json; then \
		echo "error: servers of this checkout run, and $(VENV), which ends them, is gone; run" \
			"'make install', then 'make down'" >&2; exit 2; fi

clean:  ## remove the environment and caches; runs and models stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
