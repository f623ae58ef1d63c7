# Everything a person types, on a machine with Python 3.11 or newer, make and a package index.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
OLDEST := .venv/oldest
NEWEST := .venv/newest
OLD := $(shell sed -n 's/^transformers==//p' oldest.txt)

.PHONY: help demo test test-whole test-long test-all test-oldest test-newest gpu lint docs clean

help:
	@echo "make demo         run the shipped four-phase chain on this machine"
	@echo "make test         run the tests"
	@echo "make test-whole   run the shipped chain, a rehearsal and a continued adapter from end to end"
	@echo "make test-long    run the others: minutes of training, kills and benchmarks that say little more"
	@echo "make test-all     run both"
	@echo "make test-oldest  run the runtime's tests again on the oldest versions it has to work with"
	@echo "make test-newest  run the client's and the orchestrator's quick tests on the newest versions there are"
	@echo "make gpu          show on this machine's GPU what a CPU cannot, in eight minutes"
	@echo "make lint         check style and types"
	@echo "make docs         write the generated pages of docs/ again"
	@echo "make clean        remove what make demo and make test left behind (the virtual environment stays)"

demo: $(INSTALLED)
	$(BIN)/kchain demo

test: $(INSTALLED)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-whole: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile -m long -k "not test_a_phase_that_fails" \
		tests/e2e/test_e2e_demo.py tests/e2e/test_e2e_rehearse.py tests/runtime/test_runtime_continue.py

test-long: $(INSTALLED)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m long

test-all: test test-long

test-oldest: $(OLDEST)/installed
	PYTHONPATH=$(OLDEST) $(BIN)/python -c "from transformers import __version__ as v; assert v == '$(OLD)', v"
	PYTHONPATH=$(OLDEST) $(BIN)/pytest -n 3 --dist loadfile -m "not slow and not long" tests/runtime

# What a user installs who has no constraints: a release that breaks it shows here first. Nothing of it needs torch.
test-newest: $(NEWEST)/installed
	$(NEWEST)/bin/pytest -n 3 --dist loadfile -m "not slow and not long" tests/client tests/orchestrator

gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu.py --json gpu.json

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python docs/generate.py

# torch by itself first: its pinned version may come as a smaller CPU build, which a range would pass over.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,export,test]"
	touch $(INSTALLED)

# Beside the newest versions, not in a second environment: torch alone would take a gigabyte more.
$(OLDEST)/installed: $(INSTALLED) oldest.txt
	rm -rf $(OLDEST)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $(OLDEST) -r oldest.txt
	touch $@

# From the beginning every time, since what is newest changes.
.PHONY: $(NEWEST)/installed
$(NEWEST)/installed: $(INSTALLED)
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check -e ".[server,test]"

clean:
	if [ -x $(BIN)/kchain ] && [ -d kchain-demo ]; then $(BIN)/kchain -C kchain-demo serve --stop; fi
	rm -rf kchain-demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
