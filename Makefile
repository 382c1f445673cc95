# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-airflow check format chaos bench lock clean

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "celery-hpa needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing what requirements-dev.lock names into $(VENV) (about half a minute)."
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED)  ## Run the whole story on this machine; ARGS=--without-hook, ARGS=--keep.
	$(BIN)/python -m deploy.sandbox.demo $(ARGS)

test: $(INSTALLED)  ## Run every test; ARGS are pytest's.
	$(BIN)/python -m pytest $(ARGS)

test-airflow: $(INSTALLED)  ## Scale real Airflows, 3.3 and 2.10, up and down; VERSION=3 or VERSION=2 for one.
	$(BIN)/python -m tests.airflow $(VERSION)

check: $(INSTALLED)  ## Formatting, lint, types and import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## Let ruff format and mend what it can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(INSTALLED)  ## Break everything for ten minutes, see what holds; QUICK=1 for three.
	$(BIN)/python -m tests.chaos $(ARGS)

bench: $(INSTALLED)  ## Measure, and print the figures.
	$(BIN)/python -m tests.bench $(ARGS)

lock: $(INSTALLED)  ## Resolve the dependencies anew and write the lock files.
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --quiet --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --quiet --upgrade --output-file requirements-dev.lock
	$(BIN)/uv pip compile --group pyproject.toml:build --universal --python-version 3.11 --generate-hashes \
		--no-annotate --custom-compile-command "make lock" --quiet --upgrade --output-file requirements-build.lock
	for version in 2 3; do $(BIN)/uv pip compile tests/airflow/requirements-$$version.in --universal \
		--python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock" --quiet --upgrade \
		--output-file tests/airflow/requirements-$$version.lock; done

clean:  ## Remove the virtual environment and everything that was made.
	rm -rf $(VENV) .cache out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
