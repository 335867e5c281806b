# The two commands a newcomer needs: make demo, make test. Both make .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin
# make clean test EXTRAS=demo,dev,vision,export,hub also runs the tests that need those
EXTRAS ?= demo,dev,docs

.PHONY: demo test lint format docs linkcheck clean

# One thread: these networks are too small to be shared out, and threads that wait for each other on a
# busy machine cost ten times as much.
demo: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/nuat reproduce digits --rows normal,fgsm-at,pgd-at,nuat-wa --out runs/demo

test: .venv/installed lint
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Warnings are errors: a page or an anchor that a link misses is one. docs/_build/html is the site.
docs: .venv/installed
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b html . docs/_build/html

# the links that lead elsewhere, which takes a network
linkcheck: .venv/installed
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b linkcheck . docs/_build/linkcheck

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv docs/_build docs/generated .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
