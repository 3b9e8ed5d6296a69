VENV ?= .venv
PYTHON = $(VENV)/bin/python

.PHONY: install check fix test test-fast bench

install:
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -e '.[test]'
	$(VENV)/bin/pip install --no-deps mlia-ethos-u==0.1.0

check:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fix:
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

test:
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast:
	$(PYTHON) -m pytest -n 2 --dist loadfile -m 'not slow'

bench:
	for name in export search accuracy calibrate budgets main page reach int8 micro vela step; do $(PYTHON) -m tests.bench.bench_$$name || exit 1; done
