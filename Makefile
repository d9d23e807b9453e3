# Every target makes what it needs from Python 3.11+ and make alone.
PYTHON ?= python3
# Two processes with a thread each: what two cores carry best.
PYTEST_ARGS ?= -n 2 --dist loadfile
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint wheel clean

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version}"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(READY)  ## run the bundled checkpoint on the bundled clip; pictures land in ./midway-demo
	$(BIN)/midway-hub demo --out midway-demo

test: lint  ## lint, types, and every test but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' $(PYTEST_ARGS)

test-all: lint  ## everything
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(READY)  ## dist/midway_hub-*.whl
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist *.egg-info midway-demo .mypy_cache .pytest_cache .ruff_cache
