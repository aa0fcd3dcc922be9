# make demo | test | bench | lint | format | clean. Every target makes `.venv` itself, with the plain venv and pip.

PYTHON ?= python3
JOBS ?= auto
EXTRAS ?= dev
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint format clean

help:
	@echo "make demo     a synthetic cohort all the way to a registered model and its reports, in demo/"
	@echo "make test     all tests (JOBS=N for N processes; THERACAST_DATA=FOLDER for the real cohorts)"
	@echo "make bench    the benchmarks; prints tables, asserts nothing"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make format   let ruff format and mend"
	@echo "make clean    remove what was made here, .venv included"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Theracast needs Python 3.11 or newer, this is %d.%d. Name one: make PYTHON=python3.12" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

demo: $(STAMP)
	$(BIN)/theracast demo --to demo/

# One thread a process: the processes already share the cores. Whole files, because servers and models are made once a file.
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

bench: $(STAMP)
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
