# `make help` lists the targets. Everything is installed into .venv from constraints/ (versions and hashes).
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo demo-down controller development test lint unit distributed lab lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

demo: controller ## Bare machine -> lab of four nodes -> site.yml -> smoke test -> ZeRO-3 job -> report
	$(BIN)/provision demo

demo-down: ## Take the demo's lab down; the caches stay
	$(BIN)/provision lab down

controller: $(VENV)/.controller ## Install what a controller needs: ansible and provision, no torch

development: $(VENV)/.development ## Install what the tests need as well, torch for CPUs among it

test: lint unit distributed lab ## Everything that CI runs

lint: development ## ruff, mypy --strict, yamllint, ansible-lint (profile production)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_COLLECTIONS_PATH= $(BIN)/ansible-lint --offline --strict

unit: development ## Tests that need neither ranks nor nodes, the rules of style among them
	$(PYTEST) tests/unit tests/architecture

distributed: development ## Tests with two to four gloo ranks on this machine
	$(PYTEST) tests/distributed

lab: development ## Tests on real nodes (root; installs the lab's Debian packages)
	$(BIN)/provision lab requirements --install
	REQUIRE_LAB=1 $(PYTEST) tests/lab

lock: development ## Solve constraints/ anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile $(LOCK) --extra controller -o constraints/controller.txt
	echo 'torch==2.13.0+cpu' | $(BIN)/uv pip compile $(LOCK) --extra controller --extra dev --extra node \
	  --constraint - $(addprefix --find-links ,$(PIP_FIND_LINKS)) -o constraints/development.txt

LOCK := pyproject.toml --python-version 3.11 --generate-hashes --upgrade --quiet \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links

clean: ## Remove the virtual environment and the tools' caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .ansible

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.controller: constraints/controller.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes --requirement constraints/controller.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.development: constraints/development.txt $(VENV)/.controller
	$(PIP) install --require-hashes --requirement constraints/development.txt
	touch $@
