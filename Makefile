# Everything a developer or a newcomer types. Each target installs what it needs by itself.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
QUICK := unit functional property
# A lab waits more than it computes. The tests of a file stay together, and share its lab.
LABS := -n 2 --dist loadfile

.PHONY: help setup demo test unit lint types bench property chaos lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## system packages by apt-get, Python packages into .venv

$(VENV)/.ready: requirements.lock pyproject.toml setup.py tools/system-packages cpacman/_loader.py
	./tools/system-packages
	@echo "setup: $(VENV) from requirements.lock (a minute or two the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## the main job, for real: a lab of master and hosts, plan, push, install, promote
	$(BIN)/python -m lab demo

test: setup ## all tests: on every processor what needs no lab, then the rest in two labs
	$(PYTEST) -n auto -q $(addprefix tests/,$(QUICK))
	$(PYTEST) $(LABS) -q tests $(addprefix --ignore=tests/,$(QUICK))

unit: setup ## the quick tests only, on every processor
	$(PYTEST) -n auto -q tests/unit

lint: setup ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy, strict on the library
	$(BIN)/mypy

bench: setup ## a table, and build/bench.json; ONLY=push PARTS=ssh,caps runs some of it
	$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(PARTS),--parts $(PARTS))

property: setup ## 2,000 random cases against dnf; FIRST=2000 CASES=500 tries others
	CPACMAN_PROPERTY_CASES=$(or $(CASES),2000) CPACMAN_PROPERTY_FIRST=$(or $(FIRST),0) $(PYTEST) -n auto tests/property

chaos: setup ## hundreds of kills, cuts and damages, in the lab too; 1,000 simulated rollouts
	CPACMAN_CHAOS=1 $(PYTEST) $(LABS) -v -rP tests/chaos tests/integration/test_story.py \
	    tests/integration/test_recovery.py

lock: setup ## requirements.lock anew from requirements.in
	$(BIN)/pip install -qq --disable-pip-version-check uv
	$(BIN)/uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    --python-version 3.11 requirements.in -o requirements.lock

clean: ## what the targets above made
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
