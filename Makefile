# Everything a newcomer, a developer and CI run. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SITE := local
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INVENTORY := inventories/$(SITE)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Ansible ends at once where the locale is not UTF-8 or was never generated; this one is always there.
export LC_ALL := C.UTF-8

.PHONY: help quickstart nodes artifacts tools bundle test test-all lint unit molecule test-life test-openstack conformance bench newer docs lock clean clean-store

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.ready ## Bring up a platform on three local nodes, with a sample application
	@ansible-playbook -i localhost, playbooks/local_nodes.yml -e local_nodes_state=planned
	@# Nodes are made while artifacts are fetched and built; each says on its own lines how far it is.
	@ansible-playbook -i localhost, playbooks/local_nodes.yml > >(sed -u 's/^/nodes     | /') & nodes=$$!; \
	ansible-playbook -i $(INVENTORY) playbooks/artifacts.yml > >(sed -u 's/^/artifacts | /') & artifacts=$$!; \
	trap 'kill $$nodes $$artifacts 2>/dev/null || true' INT TERM; \
	failed=0; wait $$nodes || failed=1; wait $$artifacts || failed=1; exit $$failed
	@ansible-playbook -i $(INVENTORY) site.yml

nodes: $(VENV)/.ready ## Make the local nodes alone
	@ansible-playbook -i localhost, playbooks/local_nodes.yml

artifacts: $(VENV)/.ready ## Fill the store with all that the site installs
	@ansible-playbook -i $(INVENTORY) playbooks/artifacts.yml

tools: $(BIN)/tofu ## OpenTofu into .venv/bin, for sites whose machines are made (terraform/)

bundle: $(VENV)/.ready ## Write one archive that installs the site without any network
	@ansible-playbook -i $(INVENTORY) playbooks/bundle.yml

test: $(VENV)/.ready-dev $(BIN)/tofu ## Lint, unit tests, Molecule and conformance on real nodes
	@python tests/run.py

test-all: $(VENV)/.ready-dev $(BIN)/tofu ## Everything: `make test`, long faults, figures, the verbs under load and terraform/openstack
	@python tests/run.py --all

lint unit: $(VENV)/.ready-dev $(BIN)/tofu ## One of the suites of `make test`
	@python tests/run.py $@

molecule: $(VENV)/.ready-dev $(BIN)/tofu ## The Molecule scenarios
	@python tests/run.py $@

test-life: $(VENV)/.ready-dev ## The verbs on the whole platform while it is used; too long for `make test`
	@python tests/run.py life

test-openstack: $(VENV)/.ready-dev $(BIN)/tofu ## terraform/openstack against a real control plane; too long for `make test`
	@python tests/run.py openstack

conformance: $(VENV)/.ready-dev ## The conformance tests against the running quickstart
	@ASHLAR_INVENTORY=$(INVENTORY) python -m pytest tests/conformance

bench: $(VENV)/.ready-dev ## Measure on three local nodes; writes bench/results/
	@python bench/run.py

newer: $(VENV)/.ready ## Say which artifacts have newer versions, and what these need
	@python artifacts/newer.py

docs: $(VENV)/.ready-dev ## Write the reference from the specs
	@python docs/build.py

lock: $(VENV)/.ready-dev ## Pin requirements*.in anew
	@pip install --quiet pip-tools
	@for name in requirements requirements-dev; do \
	  pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --annotation-style=line \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file $$name.txt $$name.in; done

clean: ## Remove the local nodes, their network, credentials and state
	@# A scenario that failed leaves its nodes for looking at; they go too.
	@if [ -x $(BIN)/tofu ] && [ -e inventories/tofu/state/local_nodes ]; then \
	  ansible-playbook -i inventories/tofu playbooks/machines_destroy.yml -e machines_destroy=tofu && rm -rf inventories/tofu/{credentials,state}; fi
	@for folder in inventories/local molecule/*/inventory; do \
	  site=local; case $$folder in molecule/*) site=mol-$$(basename $$(dirname $$folder)); \
	    [ -e $$folder/10-nodes.yml ] || [ -e $$folder/state/local_nodes ] || continue; rm -rf terraform/local/terraform.tfstate.d/$$site;; esac; \
	  if [ -x $(BIN)/ansible-playbook ]; then \
	    ansible-playbook -i localhost, playbooks/local_nodes_destroy.yml -e local_nodes_site=$$site -e local_nodes_inventory=$(CURDIR)/$$folder; fi; \
	  rm -rf $$folder/{credentials,state,10-nodes.yml}; \
	done
	@rm -rf .ansible .cache .mypy_cache .ruff_cache .pytest_cache

clean-store: ## Remove what all checkouts of this machine share: built and fetched artifacts, node images
	@rm -rf "$${ASHLAR_STORE:-$$HOME/.cache/ashlar/store}" "$${ASHLAR_CACHE:-$$HOME/.cache/ashlar}"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Ashlar needs Python 3.11 or newer; $(PYTHON) is older. Give another one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || apt-get install -y -qq python3-venv \
	  || { echo "$(PYTHON) has no venv module; install the package python3-venv and run again." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: requirements.txt | $(VENV)/bin/python
	@echo "Python packages are installed into $(VENV) (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(BIN)/tofu: playbooks/tools.yml artifacts/opentofu/artifact.yml | $(VENV)/.ready
	@ansible-playbook -i localhost, playbooks/tools.yml
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt | $(VENV)/.ready
	@echo "Python packages for tests are installed into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@
