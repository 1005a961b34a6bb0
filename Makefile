# Everything here works on a fresh machine with Python 3.11 to 3.13, make and git.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
# Ray's tests run in one of the workers, one after another; the others share out the rest.
NUM_TEST_WORKERS ?= 2
# Containers often forbid bytecode; then each of the many processes compiles PyTorch and Ray anew, for 10 s and more.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo test test-long test-changed test-gpu check docs dist format bench lock clean

help: ## Say what there is.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Create .venv from requirements.lock; only what is missing or changed.

.venv/bin/uv: requirements.lock
	@test -n "$(PYTHON)" || { echo "temper needs Python 3.11, 3.12 or 3.13 on the PATH" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@awk '/^uv==/ {p = 1} p {print} p && !/\\$$/ {exit}' requirements.lock > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	@touch $@

$(INSTALLED): .venv/bin/uv requirements.lock pyproject.toml
	@echo "installing temper and its packages into .venv (about 6 GB the first time)"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## The main job on embedded data, ending in a leaderboard page.
	@rm -rf demo
	@$(BIN)/temper demo --out demo

test: $(INSTALLED) ## All tests but the long ones.
	@$(BIN)/python -m pytest -n $(NUM_TEST_WORKERS) --durations=10

test-long: $(INSTALLED) ## The tests that take minutes each: lost nodes and heads, several hosts.
	@for file in $$(grep -rl pytest.mark.long tests); do $(BIN)/python -m pytest -m long $$file || exit 1; done

test-changed: $(INSTALLED) ## The long tests whose subject has changed since they last passed.
	@$(BIN)/python tests/changed.py

test-gpu: $(INSTALLED) ## The tests that only a GPU can run; skipped where there is none.
	@$(BIN)/python -m pytest tests/gpu

check: $(INSTALLED) ## Format, lint, types, layers, spelling.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell

docs: $(INSTALLED) ## The documentation as a site in site/, from the pages and the code; links are checked.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

dist: $(INSTALLED) ## The sdist and the wheel in dist/.
	@rm -rf dist
	@$(BIN)/python -m hatchling build -d dist

format: $(INSTALLED) ## Format the code, mend what ruff can.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Ratios against peers, side by side in one run.
	@$(BIN)/python bench/run.py

lock: ## Compile requirements.lock anew.
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock

clean: ## Remove what the commands made; keep .venv.
	@rm -rf demo runs shards site dist .pytest_cache .mypy_cache .ruff_cache
