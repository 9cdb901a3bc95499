# Every target sets up .venv when it is missing or older than its inputs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo

.PHONY: demo test browser lint bench kill figures clean

demo: $(STAMP)
	@$(BIN)/python examples/demo.py $(DEMO)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# A whole shift of the review station in Chromium; writes the pictures of its docs.
browser: $(STAMP)
	@$(BIN)/python -m pytest tests/service/browser --shift 50 --shots docs/images

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.throughput
	@$(BIN)/python -m benchmarks.startup

kill: $(STAMP)
	@$(BIN)/python -m benchmarks.kill

figures: $(STAMP)
	@$(BIN)/python -m benchmarks.figures

$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV): about 1.7 GB, two to five minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25"
	@echo "[1/2] torch"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@echo "[2/2] lad-agent and the rest"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
	@echo "ready"

clean:
	rm -rf $(VENV) $(DEMO)
