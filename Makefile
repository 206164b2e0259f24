# make install: the set-up alone; make demo: the page; make test: the tests. Both of the latter set up what is missing.
PYTHON ?= python3.11
BIN := .venv/bin
.PHONY: install demo test lint clean

install: .venv/ready

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/python -c "from models.prior.face import load_prior; from models.prior.reflectance import load_reflectance; load_reflectance(load_prior())"
	touch $@

.venv/ready-to-test: .venv/ready tests/requirements.txt
	$(BIN)/pip install --quiet --requirement tests/requirements.txt
	touch $@

demo: .venv/ready
	$(BIN)/python demo.py

test: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

clean:
	rm -rf .venv .pytest_cache .ruff_cache
