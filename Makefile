# make demo: install what a user needs and do the main job.   make test: install the rest and check everything.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint quick dist clean

demo: .venv/user.stamp
	$(BIN)/seran demo

test: lint
	$(BIN)/pytest

quick: .venv/developer.stamp
	$(BIN)/pytest -m "not slow"

lint: .venv/developer.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/user.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/developer.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# Its networks are compared with ours. They import torch alone; torchvision, its requirement, may not fit this torch.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torchsr
	@touch $@ .venv/user.stamp

dist: .venv/user.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling
	$(BIN)/python -m hatchling build

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache seran-demo
