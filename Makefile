# All targets but `clean` build .venv on their first run. `make setup` takes PYTHON=python3.12,
# ROS=jazzy instead of kilted and, for another build of torch, TORCH_INDEX=URL of its package index or
# TORCH=file of a wheel.

VENV ?= .venv
BIN := $(VENV)/bin
THROWS ?= 10
RATE ?= 1000
TESTS ?= test
WORKERS ?= 2

.PHONY: help sim test lint docs smoke fuzz setup clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## Build .venv with everything the project needs.

$(VENV)/.ready: $(wildcard constraints*.txt) setup.py tools/setup.sh $(wildcard interfaces/*.* interfaces/*/* interfaces/wheels/*/*)
	@PYTHON='$(PYTHON)' ROS='$(ROS)' TORCH='$(TORCH)' TORCH_INDEX='$(TORCH_INDEX)' sh tools/setup.sh $(VENV)
	@touch $@

sim: $(VENV)/.ready  ## Simulate ten throws in real time; film, plots and recordings in out/.
	@$(BIN)/ndp sim --throws $(THROWS) --rate $(RATE)

test: $(VENV)/.ready  ## Run the whole test suite.
	@$(BIN)/python -m pytest -n $(WORKERS) $(TESTS)

lint: $(VENV)/.ready  ## Check style and types: ruff check, ruff format, mypy --strict.
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/.ready  ## Build the documentation site in out/docs; a warning or a dead link is an error.
	@$(BIN)/sphinx-build -E -W --keep-going -q -b html -c docs . out/docs
	@echo "open out/docs/docs/index.html"

smoke: $(VENV)/.ready  ## Make every table and figure from a few hundred control steps, in out/smoke.
	@rm -rf out/smoke
	@$(BIN)/ndp reproduce all --scale smoke --runs out/smoke > /dev/null

fuzz: $(VENV)/.ready  ## Give random input to everything that reads from outside, for some minutes.
	@NDP_FUZZ=3000 $(BIN)/python -m pytest -q -m fuzz --timeout 3600 test

clean:  ## Remove everything that the other targets create.
	rm -rf $(VENV) .venv-* build install log out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
