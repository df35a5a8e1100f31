# Two commands set up everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo picture test check oldest newest docs wheel bench clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: .venv/ready  ## train the toy, print the table, write the report
	OMP_NUM_THREADS=1 $(BIN)/python scripts/train.py fit --config configs/emergency.yaml
	@echo "Open $$(ls -td runs/emergency/version_*/modality/report.html | head -1)"
	@echo "The paradox: $(BIN)/python scripts/train.py fit --config configs/paradox.yaml"

picture: .venv/ready  ## the README's picture: the summary sheet of the story that its first sentence tells
	OMP_NUM_THREADS=1 $(BIN)/python scripts/train.py fit --config configs/paradox.yaml
	cp "$$(ls -td runs/paradox/version_*/modality/summary.png | head -1)" README.png

test: .venv/ready  ## the whole suite, slow parts and doctests included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

check: .venv/ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

oldest: .venv/ready  ## the suite with the oldest versions that pyproject.toml admits, in an environment of its own
	$(PYTHON) -m venv .venv-oldest
	$(BIN)/python scripts/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet --constraint .venv-oldest/constraints.txt --editable ".[test,clients]"
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n auto --dist worksteal -W ignore::DeprecationWarning  # old packages' of each other

newest:  ## the suite with the newest versions there are, in an environment of its own
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager --editable ".[test,clients]"
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n auto --dist worksteal

docs: .venv/ready  ## a reference of the public names and pages to read, in build/docs
	$(BIN)/python scripts/docs.py build/docs

wheel: .venv/ready  ## dist/modality_metrics-….whl
	rm -f dist/*.whl
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

bench: .venv/ready  ## the figures of the README's performance table
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf .venv .venv-oldest .venv-newest runs build dist
