# Three commands for users (install, quickstart, test), the rest for developers. Needs git, make and Python 3.11 or newer.
# `make help` lists the targets. Variables: VENV (folder of the environment), PYTHON (the interpreter to build it with),
# CONSTRAINTS (which versions).

VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart demo test test-oldest lint campaign check docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  No NVIDIA GPU? Set PIP_EXTRA_INDEX_URL to PyTorch's CPU index (see pytorch.org, Get Started) for the small CPU build."

install: $(INSTALLED) ## what `trm` needs to solve, train and evaluate, without the tools of developers
	@echo "Next: $(BIN)/trm solve --help"

quickstart: $(INSTALLED) ## watch a full-size model solve hard Sudokus; train a small one, evaluate it, watch it too
	$(BIN)/trm solve --model tr-mamba2mlpt-sudoku modeling_trm/recipes/hard_puzzles.txt --max-steps 16 --halt 0.95 --trace
	$(BIN)/trm train quickstart
	$(BIN)/trm solve --model runs/quickstart/model modeling_trm/recipes/quickstart_puzzles.txt --max-steps 32 --trace
	@echo "Checkpoint, card (README.md) and plots: runs/quickstart/model; figures: runs/quickstart/metrics.json"

demo: $(STAMP) ## build the page on which the shipped checkpoints solve puzzles in a browser, into runs/demo (needs npm)
	$(BIN)/trm demo build --output runs/demo
	@echo "Any web server shows it, or here: $(BIN)/trm demo"

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 8

test-oldest: ## run the tests with the oldest supported versions, in an environment of their own
	$(MAKE) --no-print-directory test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

campaign: $(STAMP) ## try thousands of malformed inputs and kill processes at every file operation (a quarter of an hour or more)
	$(BIN)/python -m tests.robustness.campaign

lint: $(STAMP) ## ruff, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## everything CI and reviewers look at

docs: $(STAMP) ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## remove the environment and every cache
	rm -rf .venv .venv-ci .venv-oldest build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so an environment whose creation was interrupted is built anew. One with the tools of
# developers is good for users as well.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@test -e $(STAMP) || sh scripts/create_venv.sh $(VENV) $(CONSTRAINTS) .
	@touch $@

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@sh scripts/create_venv.sh $(VENV) $(CONSTRAINTS)
	@touch $@
