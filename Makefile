# make demo     install panda into .venv and watch it answer questions about a bundled clip
# make test     install what the tests need and run the fast ones, with coverage
# make help     the rest

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_BENCH := $(VENV)/.installed-bench

# The first Python that is new enough; another one: make demo PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: demo test test-slow lint format completions train evaluate bench clean help

demo: $(INSTALLED)
	$(BIN)/panda demo

test: $(INSTALLED_DEV)
	$(BIN)/pytest -m "not slow" --cov=pandacli --cov-report=term:skip-covered

# pytest exits with 5 where there is no such test.
test-slow: $(INSTALLED_DEV)
	$(BIN)/pytest -m slow || [ $$? -eq 5 ]

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python completions/generate.py --check

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

completions: $(INSTALLED)
	$(BIN)/python completions/generate.py

train: $(INSTALLED_DEV)
	$(BIN)/python -m training.train
	mkdir -p pandacli/assets/tiny
	install -m 644 runs/tiny/model/* pandacli/assets/tiny/

evaluate: $(INSTALLED_DEV)
	$(BIN)/python -m training.evaluate

bench: $(INSTALLED_BENCH)
	$(BIN)/python -m benchmarks --folder runs/bench

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo "make demo         install into $(VENV) and watch panda answer about a bundled clip"
	@echo "make test         the fast tests, with coverage"
	@echo "make test-slow    the slow tests"
	@echo "make lint         ruff, mypy, and whether the completion files are current"
	@echo "make format       let ruff put the code in order"
	@echo "make completions  write the completion files anew"
	@echo "make train        train the model tiny anew"
	@echo "make evaluate     measure tiny on clips it has not seen"
	@echo "make bench        what panda costs beside what, as ratios"
	@echo "make clean        remove $(VENV) and all that was built"

# A stamp is older than pyproject.toml when the dependencies have changed.
$(INSTALLED): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $(INSTALLED) $@

$(INSTALLED_BENCH): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[bench,llama]'
	@touch $(INSTALLED) $@

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "panda needs Python 3.11 or newer; python3 here is: $$(python3 --version 2>&1)" >&2; \
		exit 1; \
	fi
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python cannot make a virtual environment; on Debian: apt install python3-venv" >&2; \
		exit 1; }
