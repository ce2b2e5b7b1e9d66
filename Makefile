# Everything sets itself up: Python >= 3.11 with pip and venv, and make, are all that is needed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint format types layers tests docs crash-matrix bench lock clean help

help: ## List what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

$(READY): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

demo: $(READY) ## Run the main job: a pipeline over the packages on this machine
	$(BIN)/python examples/package_survey.py
	@echo
	@echo "What happened is on record. Now try:"
	@echo "  $(BIN)/flightlog runs ls"
	@echo "  $(BIN)/flightlog runs show @last"
	@echo "  $(BIN)/flightlog events ls --run @last"
	@echo "  $(BIN)/flightlog doctor"

test: lint layers types tests ## Run all checks: lint, format, layers, types, tests

lint: $(READY) ## Lint, and check the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## Put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

layers: $(READY) ## Check that rooms import from lower floors only
	$(BIN)/lint-imports

types: $(READY) ## Check types, strictly
	$(BIN)/mypy

tests: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n 2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	  --editable integrations/flightlog-dask --editable integrations/flightlog-ray
	$(BIN)/python -m pytest -p no:randomly README.md docs integrations/flightlog-dask/README.md
	$(BIN)/python -m pytest integrations/flightlog-dask/tests
	$(BIN)/python integrations/flightlog-ray/tests/alone.py -m pytest integrations/flightlog-ray/tests
	$(BIN)/python -m pip uninstall --quiet --yes flightlog-dask flightlog-ray

docs: $(READY) ## Build the documentation; warnings are errors
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -q -n -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

crash-matrix: $(READY) ## Kill a flow at every moment, resume it, and print what ran again
	$(BIN)/python -m tests.faults.crash_matrix

bench: $(READY) ## Measure beside Prefect, DBOS and the raw limit
	$(BIN)/python benchmarks/run.py --output docs/explanation/benchmarks.md

lock: ## Lock the tools' versions anew; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet \
	  --group test --group lint --group docs --group build --custom-compile-command "make lock" \
	  pyproject.toml -o requirements/dev.txt

clean: ## Delete what was made
	rm -rf $(VENV) build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/.envs
