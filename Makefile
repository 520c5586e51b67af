# Each target sets up .venv by itself; nothing but Python 3.11 or newer with pip and venv is needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
TORCH := 2.13.0

# Whoever keeps Python from writing down what it compiled compiles it anew for each of hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test faults soak mutants fuzz check bench bench-peers compose-test lock clean

LITELLM := build/litellm/installed
QUANTIZATION := build/quantization/installed
TESTERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
BENCHMARKS := queue gateway engine host price constraint growth

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(INSTALLED)  ## serve the small model that comes with Baton and print a curl to ask it
	@$(BIN)/baton deploy --model_type demo

test: $(INSTALLED) $(LITELLM) $(QUANTIZATION)  ## run the tests
	# The tests' models are so small that threads only wait for each other. Tests wait as well, for leases to end and
	# processes to start; one more of them than there are cores keeps the cores busy meanwhile.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(TESTERS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

faults: $(INSTALLED)  ## break everything twenty times under a mixed load, and say what it cost
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/faults --rounds 20

soak: $(INSTALLED)  ## ten minutes of one fault after another
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/faults/test_soak.py --soak_s 600

mutants: $(INSTALLED)  ## switch each mechanism off, and see the test fail that shows it
	$(BIN)/python -m tests.mutation

check: $(INSTALLED)  ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fuzz: $(INSTALLED)  ## damage ten times as many media and requests as `test` does
	OMP_NUM_THREADS=1 FUZZ_FILES=20000 FUZZ_EXAMPLES=100 $(BIN)/pytest tests/fuzz -s -o timeout=3600

bench: $(INSTALLED)  ## measure what docs/measurements.md shows, on a quiet machine
	@for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name || exit 1; done

bench-peers: $(INSTALLED)  ## measure Baton beside transformers serve and ms-swift, which it installs once
	@$(BIN)/python -m benchmarks.peers

compose-test:  ## build the images and try compose.yaml for real, where Docker is
	$(PYTHON) deploy/compose_test.py

lock:  ## write constraints.txt anew: the newest of what pyproject.toml allows, except for torch
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet torch==$(TORCH) '.[dev,quantization]'
	build/lock/bin/pip freeze --exclude baton | grep -vE '^(nvidia|cuda|triton)' | sed -E 's/\+[a-z0-9.]+$$//' > constraints.txt
	rm -rf build/lock

clean:  ## remove .venv and everything else that was made here
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# torch stands without a local version in the constraints, so that a CPU build satisfies them as well.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# LiteLLM wants other versions of what Baton stands on, so that its tests have it in a place of its own (a minute, once).
$(LITELLM): tests/clients/litellm.txt
	$(PYTHON) -m venv build/litellm
	build/litellm/bin/pip install --disable-pip-version-check --quiet --no-compile --no-deps -r $<
	@touch $@

# Wherever torchao is installed, transformers imports it (a second in each process), so that its tests have it apart.
$(QUANTIZATION): pyproject.toml constraints.txt | $(INSTALLED)
	rm -rf build/quantization
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps -c constraints.txt --target build/quantization bitsandbytes torchao
	@touch $@
