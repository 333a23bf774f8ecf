# make demo    the main job on real data, set-up included
# make test    every test, set-up included
# make check   ruff, mypy --strict, the Python 3.8 floor, layering, the Dockerfile, the wheels and advisories of every pin
# make docs    the site of docs/ in build/docs, its own small set-up included
# make release wheel and sdist in dist/, each installed clean and tried with each extra
# make floor   the device tier's tests with the oldest supported dependencies

PYTHON ?= python3
VENV ?= .venv
FLOOR_VENV ?= .venv-floor
DOCS_VENV ?= .venv-docs
# `make floor FLOOR_PYTHON=python3.8` takes the oldest Python too, where there is one.
FLOOR_PYTHON ?= $(PYTHON)
# The order of the tests: the same on every machine; `make test TEST_SEED=7` tries another.
TEST_SEED ?= 1
TEST_WORKERS ?= 2
PIP_FLAGS ?= --quiet --disable-pip-version-check
BIN := $(VENV)/bin
# Simple arithmetic on small networks gains nothing from many threads and loses much when they spin.
export OMP_NUM_THREADS ?= 2

.PHONY: demo test check floor docs release profiles clean

demo: $(VENV)/.host
	$(BIN)/edgeecc demo

test: $(VENV)/.dev
	EDGEECC_PINS=constraints.txt $(BIN)/python -m pytest -q --randomly-seed=$(TEST_SEED) -n $(TEST_WORKERS) --dist worksteal $(PYTEST_FLAGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vermin --quiet --no-tips -t=3.8- --violations edgeecc
	$(BIN)/python -m pytest -q tests/repo/test_layering.py
	$(BIN)/python -m tools.check_dockerfile
	$(BIN)/python -m tools.check_wheels --offline
	$(BIN)/python -m tools.audit --offline

floor: $(FLOOR_VENV)/.floor
	EDGEECC_PINS=constraints-floor.txt $(FLOOR_VENV)/bin/python -m pytest -q -m device -p no:randomly

docs: $(DOCS_VENV)/.docs
	$(DOCS_VENV)/bin/python -m sphinx -q -W --keep-going -E -c docs -d build/docs-cache . build/docs
	@echo build/docs/index.html

release: $(DOCS_VENV)/.docs
	$(DOCS_VENV)/bin/python -m tools.check_release $(RELEASE_FLAGS)

profiles: $(VENV)/.host
	$(BIN)/python calibration/make_shipped.py

$(VENV)/.host: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[host]'
	touch $@

$(VENV)/.dev: $(VENV)/.host
	$(BIN)/pip install $(PIP_FLAGS) -c constraints.txt -e '.[host,dev]'
	touch $@

$(FLOOR_VENV)/.floor: setup.cfg constraints-floor.txt
	$(FLOOR_PYTHON) -m venv $(FLOOR_VENV)
	$(FLOOR_VENV)/bin/pip install $(PIP_FLAGS) -c constraints-floor.txt -e '.[ort,nvml]' 'pytest>=8' pytest-timeout 'hypothesis>=6'
	touch $@

$(DOCS_VENV)/.docs: setup.cfg constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install $(PIP_FLAGS) -c constraints.txt -e '.[docs,release]'
	touch $@

clean:
	rm -rf $(VENV) $(FLOOR_VENV) $(DOCS_VENV) build dist edgeecc.egg-info
