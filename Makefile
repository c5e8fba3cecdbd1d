# make demo     install panda into .venv and watch it answer questions about a bundled clip
# make test     install what the tests need and run the fast ones
# make help     the rest

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_BENCH := $(VENV)/.installed-bench
PIP := -m pip --disable-pip-version-check

# What is installed here has the versions in constraints.txt, build dependencies included. Older
# releases of pip read the first variable for those, newer ones the second.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

# What a release of a dependency could break: the model, quantised forms, decoding, every command.
SMOKE := tests/modeling tests/inference/test_panda.py tests/inference/backends \
	tests/inference/planning/test_loader.py tests/quantization/test_conversion.py \
	tests/checkpoints/test_download.py tests/video/test_sample_frames.py tests/video/test_decoder.py \
	tests/batch/test_runner.py tests/cli/test_with_tiny.py tests/cli/test_chat_terminal.py \
	tests/cli/test_help.py tests/terminal/test_progress.py tests/terminal/test_console.py \
	tests/cli/test_serve_command.py tests/server/test_server_examples.py tests/server/test_remote.py

# The first Python that is new enough; another one: make demo PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: demo test coverage test-slow test-latest test-oldest test-wheel lock lint check-generated format completions docs train \
	evaluate bench clean help

demo: $(INSTALLED)
	$(BIN)/panda demo

# A worker for each core. The tests of a file share what is costly to set up, so they stay together.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile

test: $(INSTALLED_DEV)
	$(BIN)/pytest -m "not slow" $(PARALLEL)

coverage: $(INSTALLED_DEV)
	$(BIN)/pytest -m "not slow" $(PARALLEL) --cov=pandacli --cov-report=term:skip-covered

# pytest exits with 5 where there is no such test.
test-slow: $(INSTALLED_DEV)
	$(BIN)/pytest -m slow || [ $$? -eq 5 ]

# The newest releases that pyproject.toml admits. What is deprecated there is shown, not an error.
test-latest: PIP_CONSTRAINT :=
test-latest: PIP_BUILD_CONSTRAINT :=
test-latest:
	rm -rf .venv-latest
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/python $(PIP) install -e '.[dev]'
	@echo "newer than in constraints.txt:"
	@.venv-latest/bin/python $(PIP) freeze --exclude-editable | sed 's/+.*//' \
		| grep -vixFf constraints.txt || echo "nothing"
	.venv-latest/bin/pytest -m "not slow" -W default $(PARALLEL) $(SMOKE)

# The oldest releases that pyproject.toml admits.
test-oldest: PIP_CONSTRAINT := .venv-oldest/constraints.txt
test-oldest: PIP_BUILD_CONSTRAINT :=
test-oldest:
	rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) .ci/lower_bounds.py > $(PIP_CONSTRAINT)
	.venv-oldest/bin/python $(PIP) install -e '.[dev]'
	.venv-oldest/bin/pytest -m "not slow" -W default $(PARALLEL) $(SMOKE)

# A wheel in an environment that has nothing else, and a folder that has nothing of this one.
test-wheel:
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp constraints.txt "$$folder" \
		&& $(PYTHON) -m venv "$$folder/venv" \
		&& "$$folder/venv/bin/python" $(PIP) wheel --no-deps --wheel-dir "$$folder" . \
		&& cd "$$folder" && venv/bin/python $(PIP) install pandacli-*.whl \
		&& HOME="$$folder" venv/bin/panda demo \
		&& venv/bin/panda completions bash > "$$folder/panda.bash" \
		&& clip=$$(venv/bin/python -c "import pandacli; print(pandacli.__path__[0])")/assets/demo.mp4 \
		&& answer=$$(HOME="$$folder" venv/bin/panda ask "$$clip" "What happens?" --model tiny) \
		&& echo "$$answer" && [ "$$answer" != "$${answer#A red circle moves right.}" ] \
		&& { code=0; HOME="$$folder" venv/bin/panda serve --model tiny || code=$$?; [ $$code = 2 ]; }

# Exact versions of all that the targets here install, the newest that pyproject.toml admits.
lock: PIP_CONSTRAINT :=
lock: PIP_BUILD_CONSTRAINT :=
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python $(PIP) install -e '.[dev,bench]' editables hatchling
	{ echo "# The versions that the Makefile installs. Written by make lock." \
		&& .venv-lock/bin/python $(PIP) freeze --all --exclude pip --exclude-editable \
			| sed 's/+.*//'; } > .venv-lock/new
	! grep ' @ ' .venv-lock/new
	mv .venv-lock/new constraints.txt
	rm -rf .venv-lock

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(MAKE) check-generated

check-generated: $(INSTALLED)
	$(BIN)/python completions/generate.py --check
	$(BIN)/python docs/generate.py --check

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

completions: $(INSTALLED)
	$(BIN)/python completions/generate.py

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

train: $(INSTALLED_DEV)
	$(BIN)/python -m training.train
	mkdir -p pandacli/assets/tiny
	install -m 644 runs/tiny/model/* pandacli/assets/tiny/

evaluate: $(INSTALLED_DEV)
	$(BIN)/python -m training.evaluate

bench: $(INSTALLED_BENCH)
	$(BIN)/python -m benchmarks --folder runs/bench

clean:
	rm -rf $(VENV) .venv-latest .venv-oldest .venv-lock build dist .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@echo "make demo         install into $(VENV) and watch panda answer about a bundled clip"
	@echo "make test         the fast tests"
	@echo "make coverage     the same, and which lines they run"
	@echo "make test-slow    the slow tests"
	@echo "make test-latest  a part of them with the newest releases that pyproject.toml admits"
	@echo "make test-oldest  a part of them with the oldest"
	@echo "make test-wheel   build a wheel and run it in an empty environment"
	@echo "make lock         write constraints.txt, the versions that all of these install"
	@echo "make lint         ruff, mypy, and whether generated files are current"
	@echo "make format       let ruff put the code in order"
	@echo "make completions  write the completion files"
	@echo "make docs         write docs/command-line.md from the help texts"
	@echo "make train        train the model tiny"
	@echo "make evaluate     measure tiny on clips it has not seen"
	@echo "make bench        what panda costs beside what, as ratios"
	@echo "make clean        remove $(VENV) and all that was built"

# A stamp is older than these two files when the dependencies have changed.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP) install -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP) install -e '.[dev]'
	@touch $(INSTALLED) $@

$(INSTALLED_BENCH): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python $(PIP) install -e '.[bench]'
	@touch $(INSTALLED) $@

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "panda needs Python 3.11 or newer; python3 here is: $$(python3 --version 2>&1)" >&2; \
		exit 1; \
	fi
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Python cannot make a virtual environment; on Debian: apt install python3-venv" >&2; \
		exit 1; }
