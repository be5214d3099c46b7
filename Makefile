# Every target works from a fresh clone: the environment is made in .venv when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what it imports; compiling all 19,000 modules ahead takes about a minute.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
INPUTS := settings.ini setup.py pyproject.toml constraints.txt
# The notebooks that `make notebooks` runs; none given means all.
NB ?=
# What `make address` sets.
OWNER ?=
REPO ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-lowest test-pages export clean-notebooks readme notebooks pages address docs inventory

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

venv: $(VENV)/.dev ## make .venv with what development needs

demo: $(VENV)/.run ## run the demonstration
	@$(BIN)/selectq demo

test: $(VENV)/.dev ## run every check, then the tests
	@$(BIN)/python scripts/check.py

# Not a part of `make test`: PyTorch of those days comes with gigabytes of CUDA. pip cannot resolve to
# the lowest versions, so uv does. Two pages of onnxruntime need 1.27, which Python 3.10 has not.
LOWEST := .venv-lowest
test-lowest: ## pytest and three notebooks under the lowest allowed versions, in .venv-lowest
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev]'
	$(LOWEST)/bin/python -m pytest -q tests
	for nb in 20_quantizer 60_ranking quickstart; do \
		$(LOWEST)/bin/nbdev_test --path nbs/$$nb.ipynb || exit 1; done

# Not a part of `make test`: more than half an hour of the processor, and an environment with all extras.
test-pages: $(VENV)/.dev ## run every page from the wheel, in a clean environment away from here
	@$(BIN)/python scripts/pages_anywhere.py

export: $(VENV)/.dev ## write selectq/*.py and nbs/nbdev.yml
	@$(BIN)/nbdev_export
	@$(BIN)/python -c "from nbdev.quarto import refresh_quarto_yml; refresh_quarto_yml()"

clean-notebooks: $(VENV)/.dev ## remove execution counts and other metadata from the notebooks
	@$(BIN)/nbdev_clean

readme: $(VENV)/.dev ## write README.md from nbs/index.ipynb
	@$(BIN)/python scripts/readme.py

notebooks: $(VENV)/.dev ## run notebooks in place and clean them: NB="nbs/20_quantizer.ipynb ..." or all
	@$(BIN)/python scripts/run_notebooks.py $(NB)

pages: $(VENV)/.dev ## put the link to Colab and the first cell on every page
	@$(BIN)/python scripts/pages.py

address: $(VENV)/.dev ## give the repository its address: OWNER=... REPO=...
	@test -n "$(OWNER)" -a -n "$(REPO)" || { echo "make address OWNER=... REPO=..., please"; exit 2; }
	@$(BIN)/python scripts/address.py "$(OWNER)" "$(REPO)"

# README.md is made by scripts/readme.py; a fresh date keeps nbdev_docs from making its own.
docs: $(VENV)/.dev ## build the site in _docs/ (needs Quarto 1.7 or later)
	@touch README.md
	@PYTHONPATH=. $(BIN)/nbdev_docs

inventory: ## count names, lines, parameters, wide lines
	@$(PYTHON) scripts/inventory.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later, please: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# What running needs, and what development needs on top of it. A stamp is older than its inputs when they change.
$(VENV)/.run: $(INPUTS) | $(BIN)/python
	@echo "Installing selectq in $(VENV) (a minute or two)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	@echo "Installing selectq and its development tools in $(VENV) (a minute or two)"
	@$(PIP) -e '.[dev]'
	@touch $(VENV)/.run $@
