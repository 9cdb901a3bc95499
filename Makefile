# Every target sets up .venv when it is missing or older than its inputs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo
KILL ?= --kills 200

.PHONY: demo test slow browser fuzz lint bench bench-train load kill figures clean

demo: $(STAMP)
	@$(BIN)/python examples/demo.py $(DEMO)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# The 3B's own shape through training and inspection, everything killed (make kill does it in CI), GRPO
# cut off and in two processes, arms of the ablation by time, 500 posts at once: minutes, and some 10 GB.
slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

# A whole shift of the review station in Chromium; writes the pictures of its docs.
browser: $(STAMP)
	@$(BIN)/python -m pytest tests/service/browser --shift 50 --shots docs/images

# Requests drawn from the service's OpenAPI schema, and every answer held against it.
fuzz: $(STAMP)
	@$(BIN)/python -m tests.service.fuzz

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.throughput
	@$(BIN)/python -m benchmarks.startup

bench-train: $(STAMP)
	@$(BIN)/python -m benchmarks.training

# 1,000 posts to the service, 32 at a time, beside the bare reasoner.
load: $(STAMP)
	@$(BIN)/python -m benchmarks.load

# SIGKILL at random moments of inspect, review, migration, backup, export and archive, and of watch
# and serve under load.
kill: $(STAMP)
	@$(BIN)/python -m benchmarks.kill $(KILL)

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
