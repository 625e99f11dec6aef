# Commands for newcomers, developers and pipelines. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NIMLAB := $(BIN)/nimlab
PIP_INSTALL := pip install --quiet --disable-pip-version-check
LOWEST := .venv-lowest
WORKERS ?= logical
LIVE_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo demo-down install programs test test-fast test-lab test-lowest bench check lint types layers format \
	golden clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: install ## start the sandbox, sync the lab and list it (the first time, this builds Kubernetes)
	@$(NIMLAB) sandbox up
	@$(NIMLAB) sync
	@echo
	@$(NIMLAB) list
	@echo
	@echo 'Try: . $(BIN)/activate, edit experiments/purple.yaml, then `nimlab sync --dry-run`.   Clean up: `make demo-down`.'

demo-down: ## stop the sandbox and delete its data (the built programs stay in the cache)
	@test ! -x $(NIMLAB) || $(NIMLAB) sandbox down

install: $(VENV)/.installed ## create the virtual environment

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo 'nimlab   installing into $(VENV)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'nimlab requires Python 3.11 or newer; hint: `make PYTHON=python3.12 …`' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/$(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@

programs: install ## build the programs of the control plane that are missing
	@$(NIMLAB) sandbox build

test-fast: install ## run the tests that need no API server and start no programs (less than a minute)
	$(BIN)/pytest -q --quick -m "not live and not process" -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test: programs ## run all tests, with one API server per worker (the first time, this builds Kubernetes)
	$(BIN)/pytest --require-live -n $(LIVE_WORKERS) --dist load --maxschedchunk 1 $(PYTEST_ARGS)

test-lab: install ## run the tests with real pods: kubelet, containerd, CNI (requires Linux and root)
	$(BIN)/python -m tests.rig $(PYTEST_ARGS)

test-lowest: ## run the fast tests with the lowest supported versions of all dependencies
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) -m tests.support.lowest_versions pyproject.toml > $(LOWEST)/constraints-lowest.txt
	$(LOWEST)/bin/$(PIP_INSTALL) --constraint $(LOWEST)/constraints-lowest.txt --editable '.[dev]'
	$(LOWEST)/bin/pytest -q --quick -m "not live and not process" -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

bench: programs ## compare nimlab with Flux, kubectl and Helm on one new server (more than an hour)
	@$(BIN)/$(PIP_INSTALL) --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m bench $(BENCH_ARGS)

check: install lint types layers test ## run all checks that a commit must pass

lint: install ## check style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install ## check types with mypy --strict
	$(BIN)/mypy

layers: install ## check the direction of imports
	$(BIN)/lint-imports

format: install ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: install ## rewrite the expected files of the golden tests; read the diff before you commit
	$(BIN)/pytest --update-golden -k golden

clean: demo-down ## delete everything that these commands created in this folder
	rm -rf $(VENV) $(LOWEST) .nimlab .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
