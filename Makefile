# `make help` lists the targets. Everything is installed into .venv from constraints/ (versions and hashes).
PYTHON ?= $(or $(shell command -v python3.11 python3.12 python3.13 | head -n 1),python3.11)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# uv installs in seconds what takes pip minutes, from where pip is told to: it does not read pip's configuration itself.
SOURCES = $(PIP) config list | sed -nE "s/\\\\n/ /g; s/^[^=]*\.((extra-)?index-url|find-links)='(.*)'$$/--\1 \3/p" \
  | awk '{for (i = 2; i <= NF; i++) print $$1, $$i}'
INSTALL = $(BIN)/uv pip install --python $(BIN)/python --native-tls --index-strategy unsafe-best-match $$($(SOURCES))
PYTEST := $(BIN)/python -m pytest --durations=12

# Where the environment forbids bytecode, each start of torch and of Ansible compiles its sources, which is half of what it takes.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-down controller development test background low-priority four-nodes others measured small-labs own-labs launched ranks \
  style lint unit distributed lab lab-packages long mutations frozen-site budget drill-security browser lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

demo: controller ## Bare machine -> lab of four nodes -> site.yml -> smoke test -> ZeRO-3 job -> report
	$(BIN)/provision demo

demo-down: ## Take the demo's lab down; the caches stay
	$(BIN)/provision lab down

controller: $(VENV)/.controller ## Install what a controller needs: ansible and provision, no torch

development: $(VENV)/.development ## Install what the tests need as well, torch for CPUs among it

# Three lanes: tests on the lab of four nodes; ranks and small labs; lint and unit tests, which take a tenth and what those leave,
# then the browser, jobs of a launcher and labs of their own. A test that measures has the machine to itself but for those (tests/conftest.py), in a lane of
# the usual priority: what a test of little priority waits for may come late. Each lane holds its modules against
# tests/budget.yml. What failed in any of them is told again at the end.
test: style lab-packages ## Everything that CI runs
	mkdir -p $(dir $(LOG))
	$(MAKE) --jobs=3 --keep-going background four-nodes others 2>&1 | tee $(LOG) || { $(BIN)/python -m tests.failures $(LOG); exit 2; }

LOG = .pytest_cache/lanes/log

background:
	$(MAKE) --jobs=1 --keep-going low-priority browser launched own-labs $(LANE)

low-priority:
	nice -n 10 $(MAKE) --jobs=1 --keep-going lint unit MARKED="not long and not measures"

four-nodes:
	$(LAB_TESTS) "not long and four_nodes" --lane four-nodes tests/lab $(LANE)

others:
	$(MAKE) --jobs=1 --keep-going ranks measured small-labs $(LANE)

# Tests that start a launcher, and those whose ranks are forked: two lanes, since together they are the longest.
LAUNCHED := $(patsubst %,tests/distributed/test_%.py,bench exchange flight gate launch launch_ranks smoke)

launched:
	$(PYTEST) -m "not long" --lane launched $(LAUNCHED)

ranks:
	$(PYTEST) -m "not long" --lane ranks $(filter-out $(LAUNCHED),$(wildcard tests/distributed/test_*.py))

measured:
	$(PYTEST) -m "not long and measures" --lane measured $$(grep --recursive --files-with-matches --include=*.py mark.measures tests/unit)

# What a lab is, and tests that have a lab of their own; the small labs' others share one. So two lanes can have them at once.
OWN_LABS := $(wildcard tests/lab/test_lab_*.py) $(patsubst %,tests/lab/test_%.py,mirror audit ways_in sites_disk)

own-labs:
	$(LAB_TESTS) "not long" --lane own-labs $(OWN_LABS)

small-labs:
	$(LAB_TESTS) "not long and not four_nodes" --lane small-labs $(filter-out $(OWN_LABS),$(wildcard tests/lab/test_*.py))

# Each line says of which lane it is.
LANE = 2>&1 | sed --unbuffered 's/^/$@: /'

style: development ## ruff, in a second
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint: style ## ruff, mypy --strict, yamllint, ansible-lint (profile production)
	$(BIN)/mypy
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_COLLECTIONS_PATH= $(BIN)/ansible-lint --offline --strict

unit: development ## Tests that need neither ranks nor nodes, the rules of style among them
	$(PYTEST) --numprocesses=2 --dist=worksteal -m "$(MARKED)" --lane unit tests/unit tests/architecture

MARKED = not long

distributed: development ## Tests with two to four gloo ranks on this machine
	$(PYTEST) -m "not long" --lane distributed tests/distributed

lab: lab-packages ## Tests on real nodes (root; installs the lab's Debian packages)
	$(LAB_TESTS) "not long" tests/lab

long: lab-packages ## Tests that take minutes each: a node's life, cuts anywhere, spoilt images (hours)
	$(LAB_TESTS) long tests/unit tests/distributed tests/lab

mutations: development ## Faults put into copies of the product: the tests named with each must find it
	$(PYTEST) -rP -m long tests/unit/test_mutations.py

# The name and the network of the lab of four nodes in tests/lab/conftest.py, in whose nodes they are written.
frozen-site: lab-packages ## The lab of four converged nodes as a snapshot: SITE_FROM=site-proven pytest tests/lab/test_gate.py
	-$(BIN)/provision lab snapshot remove site-proven
	$(BIN)/provision lab mirror --environment torch
	$(BIN)/provision lab up --name site --subnet 10.77.202.0/24 --nodes 4
	$(BIN)/ansible-playbook playbooks/site.yml -i /var/lib/clusterwright/labs/site/inventory -e cluster_environment_name=torch
	$(BIN)/provision lab freeze site-proven --name site
	$(BIN)/provision lab down --name site

budget: ## Takes what the last run of each lane took into tests/budget.yml
	$(BIN)/python -m tests.budget

drill-security: lab-packages ## Attacks on nodes, jobs, checkpoints, joining and images: each must be refused (root)
	$(LAB_TESTS) attack tests

LAB_TESTS = REQUIRE_LAB=1 $(PYTEST) -m

lab-packages: development
	$(BIN)/provision lab requirements --install

browser: development ## Tests of pages in headless Chromium (root; installs its Debian package)
	command -v chromium-headless-shell >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install --yes -qq --no-install-recommends chromium-headless-shell; }
	REQUIRE_BROWSER=1 $(PYTEST) tests/browser

lock: development ## Solve constraints/ anew from pyproject.toml
	echo uv | $(LOCK) - -o constraints/uv.txt
	$(LOCK) pyproject.toml --extra controller -o constraints/controller.txt
	echo 'torch==2.13.0+cpu' | $(LOCK) pyproject.toml --extra controller --extra dev --extra node --extra hub \
	  --constraint - -o constraints/development.txt

LOCK = $(BIN)/uv pip compile --native-tls --index-strategy unsafe-best-match $$($(SOURCES)) \
  --python-version 3.11 --generate-hashes --upgrade --quiet \
  --no-header --no-annotate --no-emit-index-url --no-emit-find-links

clean: ## Remove the virtual environment and the tools' caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .ansible

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: constraints/uv.txt | $(BIN)/python
	$(PIP) install --quiet --require-hashes --requirement constraints/uv.txt
	touch $@

$(VENV)/.controller: constraints/controller.txt pyproject.toml $(BIN)/uv
	$(INSTALL) --require-hashes --requirement constraints/controller.txt
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.development: constraints/development.txt $(VENV)/.controller
	$(INSTALL) --require-hashes --requirement constraints/development.txt
	touch $@
