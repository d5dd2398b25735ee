# `make setup` takes PYTHON=python3.12 and, for another build of torch, TORCH_INDEX=URL of the
# package index that has it, or TORCH=file of a wheel.
# `make sim` and `make test` need nothing set up beforehand; both build .venv on their first run.

VENV ?= .venv
BIN := $(VENV)/bin
THROWS ?= 10
RATE ?= 1000
TESTS ?= test

.PHONY: help sim test lint smoke fuzz setup clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## Build .venv with everything that the project needs.

$(VENV)/.ready: constraints.txt setup.py tools/setup.sh $(wildcard interfaces/*.* interfaces/*/*)
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' TORCH_INDEX='$(TORCH_INDEX)' sh tools/setup.sh $(VENV)
	@touch $@

sim: $(VENV)/.ready  ## Ten throws in real time without a screen; video and plot in out/.
	@$(BIN)/ndp sim --throws $(THROWS) --rate $(RATE)

test: $(VENV)/.ready  ## Run the whole test suite.
	@$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/.ready  ## ruff and mypy.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

smoke: $(VENV)/.ready  ## Every table and figure of the paper from a few hundred control steps, in out/smoke.
	@rm -rf out/smoke
	@$(BIN)/ndp reproduce all --scale smoke --runs out/smoke > /dev/null

fuzz: $(VENV)/.ready  ## Random input to everything that reads from outside, for some minutes.
	@NDP_FUZZ=3000 $(BIN)/python -m pytest -q -m fuzz --timeout 3600 test

clean:  ## Remove everything that the other targets made.
	rm -rf $(VENV) .venv-* build install log out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
