# The two commands a newcomer needs: make demo, make test. Both make .venv if it is missing.
PYTHON ?= python3
BIN := .venv/bin
# make clean test EXTRAS=demo,dev,vision,export,hub also runs the tests that need those
EXTRAS ?= demo,dev

.PHONY: demo test lint format clean

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

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
