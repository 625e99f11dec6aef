# Everything a newcomer or a pipeline runs. Each target says what it does: `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NIMLAB := $(BIN)/nimlab

.DEFAULT_GOAL := help
.PHONY: help demo demo-down install programs test test-fast test-lab bench check lint types layers format golden clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: install ## a lab on this machine: sandbox, sync, list (the first time it builds Kubernetes)
	@$(NIMLAB) sandbox up
	@$(NIMLAB) sync
	@echo
	@$(NIMLAB) list
	@echo
	@echo 'Try: . $(BIN)/activate, edit experiments/purple.yaml, then `nimlab sync --dry-run`.   Clean up: `make demo-down`.'

demo-down: ## stop the sandbox and remove all that it kept (the built programs stay in the cache)
	@test ! -x $(NIMLAB) || $(NIMLAB) sandbox down

install: $(VENV)/.installed ## the virtual environment

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo 'nimlab   installing into $(VENV)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'nimlab needs Python 3.11 or newer; name one with `make PYTHON=python3.12 …`' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

programs: install ## the control plane's programs, built where they aren't found
	@$(NIMLAB) sandbox build

test-fast: install ## all tests without an API server or other programs, in parallel (under a minute)
	$(BIN)/pytest -q -m "not live and not process" -n auto --dist worksteal $(PYTEST_ARGS)

test: programs ## all tests, on a real API server (the first time it builds Kubernetes)
	$(BIN)/pytest --require-live $(PYTEST_ARGS)

test-lab: install ## real peers in real pods: kubelet, containerd, CNI (Linux, root)
	$(BIN)/python -m tests.rig $(PYTEST_ARGS)

bench: programs ## nimlab beside Flux's engine, kubectl and Helm, on one fresh server (an hour and more)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m bench $(BENCH_ARGS)

check: install lint types layers test ## what a commit has to pass

lint: install ## style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install ## mypy --strict over all own code
	$(BIN)/mypy

layers: install ## imports go one way
	$(BIN)/lint-imports

format: install ## mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: install ## rewrite the expected files of the golden tests; read the diff before you commit
	$(BIN)/pytest --update-golden -k golden

clean: demo-down ## remove what was made here
	rm -rf $(VENV) .nimlab .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
