# make demo | test | lint | doc | bench | clean. Nothing is needed but Python >= 3.11 and make.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
IMAGE ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt
DEMO := examples/restoration/plot_blind_restoration.py
LINTED := sklearn_psf tests examples doc setup.py $(wildcard benchmarks)
# BLAS and OpenMP threads only get in each other's way on the small arrays of the tests
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: demo test lint doc bench clean

demo: $(VENV)/.installed
	$(BIN)/python $(DEMO) $(if $(IMAGE),--image "$(IMAGE)") $(DEMO_ARGS)

test: $(VENV)/.installed
	$(ONE_THREAD) MPLBACKEND=Agg $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/codespell
	$(BIN)/mypy

doc: $(VENV)/.installed-doc
	MPLBACKEND=Agg $(BIN)/sphinx-build -b html doc doc/_build/html

bench: $(VENV)/.installed
	@for script in $(filter-out benchmarks/train_%.py,$(sort $(wildcard benchmarks/*.py))); do \
	    echo "== $$script"; $(BIN)/python $$script || exit 1; \
	done

clean:
	rm -rf doc/_build doc/auto_examples doc/generated doc/sg_execution_times.rst build dist \
	    htmlcov .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	rm -rf "$(VENV)"

# A stamp is newer than what it was made from, so a second run starts at once.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "sklearn_psf needs Python >= 3.11; name one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
	    exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv "$(VENV)"
	touch $@

$(VENV)/.installed: pyproject.toml setup.py constraints.txt | $(VENV)/.created
	@echo "Installing into $(VENV); the first time this downloads PyTorch and takes some minutes."
	$(INSTALL) -e ".[plot,test]"
	touch $@

$(VENV)/.installed-lint: $(VENV)/.installed
	$(INSTALL) -e ".[lint]"
	touch $@

$(VENV)/.installed-doc: $(VENV)/.installed
	$(INSTALL) -e ".[doc]"
	touch $@
