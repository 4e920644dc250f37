# Every target sets up what it needs in .venv first. Python 3.11 or newer is all it takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT ?= demo-out

.PHONY: demo deploy-demo test coverage mutants check docs docs-site bench sbom audit demo-model clean

demo: $(VENV)/.site-installed ## a whole signed round of four sites, from DICOM to report
	$(BIN)/fedcac demo --out $(OUT)

deploy-demo: $(VENV)/.dev-installed ## a round over Flower on this machine: SuperLink, four SuperNodes, TLS
	$(BIN)/python tests/flower/deployment.py --out build/deploy-demo

test: $(VENV)/.dev-installed ## every test
	$(BIN)/pytest -n 2 --dist loadfile -rs

coverage: export COVERAGE_FILE = $(CURDIR)/build/coverage/data
coverage: $(VENV)/.dev-installed ## every test, and whether each room is covered as far as it must be
	mkdir -p build/coverage
	$(BIN)/pytest -n 2 --dist loadfile -rs --cov --cov-report=
	$(BIN)/coverage json -q -o build/coverage/report.json
	$(BIN)/python tests/coverage_gate.py build/coverage/report.json

mutants: $(VENV)/.dev-installed ## faults planted in the release gate: does a test notice each of them?
	$(BIN)/python -m tests.mutation disclosure

check: $(VENV)/.dev-installed ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev-installed ## regenerate the reference pages that come from code
	$(BIN)/python docs/generate.py

docs-site: $(VENV)/.dev-installed ## the documentation as a site in build/docs/html, offline; a warning is an error
	$(BIN)/python -m sphinx -b html -q -W --keep-going -d build/docs/trees docs build/docs/html

bench: $(VENV)/.dev-installed ## rerun every benchmark; results go to benchmarks/results
	$(BIN)/python -m benchmarks

sbom: $(VENV)/.dev-installed ## a bill of materials (CycloneDX) of each installation, in build/sbom
	$(BIN)/python docs/sbom.py --out build/sbom

audit: build/audit/bin/pip-audit ## known vulnerabilities of the pinned packages; asks PyPI
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

build/audit/bin/pip-audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1

demo-model: $(VENV)/.site-installed ## train the demonstration package again from its seed
	$(BIN)/python -m fedcac.training.demonstration --out fedcac/models/packages/eng2021-demo --seed 1

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.site-installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[site,coordinator]'
	touch $@

$(VENV)/.dev-installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.site-installed

clean: ## remove the environment and the demonstration's output
	rm -rf $(VENV) $(OUT)
