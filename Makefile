# Two commands are all a newcomer needs: `make demo` and `make test`. Both make .venv first.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
QUESTION ?= Create a storage account named photos in resource group holiday

# One pip line, with the exact versions. torch comes first and alone: when its build is settled, nothing pulls another.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo smallest test test-web proof lint format clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up .venv (a few minutes the first time)"
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## the quick start, from plan to answer
	@bash examples/cloud-commands/demo.sh $(BIN) "$(QUESTION)"

smallest: $(STAMP)  ## a first look, no model to download: about a minute
	@bash examples/smallest/demo.sh $(BIN)

lint: $(STAMP)  ## ruff, mypy, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes of one thread each: a tiny model gains nothing from two threads, and two processes do not wait for each other.
test: lint  ## everything that a change must pass
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=10

test-web: $(STAMP)  ## the report and the chat page in a real browser (installs Debian's chromium where it is missing)
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }
	$(BIN)/python -m pytest -m browser tests/web tests/serve/test_page.py

proof: $(STAMP)  ## slow proofs: 20 kills, and the like
	$(BIN)/python -m pytest -m proof

format: $(STAMP)  ## let ruff rewrite
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove what make and the examples made; downloads in the user's cache stay
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf examples/*/data examples/*/model examples/*/.genwright examples/*/*/.genwright examples/*/report.html examples/*/*/report.html
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
