# make demo   install into .venv, train the default model for two minutes, show the result
# make test   install the test dependencies and run the tests
# make check  what CI runs: format, lint, types, import layers, tests
# make slow   tests that take minutes
# make docs   build the documentation into docs/_build/html
# make vendor fetch the libraries of the page again (needs npm)
# make clean  remove what make created

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One process for each core, up to 4; each takes the tests of a whole file, whose fixtures they share, the longest first.
WORKERS ?= --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check slow docs vendor clean

demo: $(VENV)/installed
	$(BIN)/tokenloom train

test: $(VENV)/installed-dev
	$(BIN)/pytest $(WORKERS)

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/pytest $(WORKERS)

slow: $(VENV)/installed-dev
	$(BIN)/pytest -m slow

docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

vendor: $(VENV)/installed
	$(BIN)/python scripts/vendor.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist docs/_build docs/project docs/reference

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable ".[serve]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) --editable ".[dev]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(INSTALL) --editable ".[docs]"
	touch $@
