# Two commands on a machine with Python and make: `make demo` and `make test`.
# Each builds its own .venv on first use. PYTHON and VENV can be set from outside.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS ?= constraints.txt
THREADS ?= 1
DEMO_ARGS ?=
BENCH_ARGS ?=
TEST_ARGS ?=
KILLS ?= 6
# two workers, a thread each
PYTEST := OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n 2 $(TEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test sweep conformance accuracy bench lint format reference site wheel clean

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: export OMP_NUM_THREADS = $(THREADS)
demo: $(VENV)/.examples  ## logistic regression, eight schools, a policy, a mixture and an HMM
	$(BIN)/python -m examples.kl_by_hand
	$(BIN)/python -m examples.logistic_regression $(DEMO_ARGS)
	$(BIN)/python -m examples.hierarchical $(DEMO_ARGS)
	$(BIN)/python -m examples.kl_penalised_policy $(DEMO_ARGS)
	$(BIN)/python -m examples.mixture_and_hmm $(DEMO_ARGS)

test: $(VENV)/.test  ## the tests, doctests included
	$(PYTEST) -m "not sweep"

sweep: $(VENV)/.test  ## the slow tests that `make test` leaves out; KILLS=20 kills ranks more often
	PYRO_KL_KILLS=$(KILLS) $(PYTEST) -m sweep

conformance: $(VENV)/.test  ## the short form: a few cases of every test
	$(PYTEST) --short -m "not sweep"

accuracy: $(VENV)/.test  ## values and told errors alone; ATEN_CPU_CAPABILITY=default asks for another processor
	$(PYTEST) -m accuracy

bench: $(VENV)/.examples .venv-numpyro/.done  ## a step of SVI against Pyro's, a loop by hand and NumPyro's
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.svi_steps_cost_their_arithmetic $(BENCH_ARGS)

lint: $(VENV)/.dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

format: $(VENV)/.dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/.test  ## compute the reference values that are missing
	$(BIN)/python -m tests.conformance.reference --missing
	$(BIN)/python -m tests.conformance.reference.quadrature_values
	$(BIN)/python -m tests.conformance.reference.divergence_values

site: export OMP_NUM_THREADS = $(THREADS)
site: $(VENV)/.docs  ## the documentation, in build/site; ONLY=tutorials/vae makes one page
	$(BIN)/python -m sphinx -W --keep-going -j 2 docs build/site

wheel: $(VENV)/.dev  ## build the sdist, and the wheel from it; say what is in the wheel
	$(BIN)/python -m build
	$(BIN)/python -m zipfile -l dist/pyro_kl-*.whl

# One stamp per extra, made again when what is installed has changed.
$(VENV)/.%: pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || { echo "making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing pyro-kl[$*] under $(CONSTRAINTS) (a few minutes the first time)"
	$(PIP) install --progress-bar on -c $(CONSTRAINTS) -e '.[$*]'
	@touch $@

# NumPyro needs a newer Python than pyro_kl and has an environment of its own. The benchmark says
# what it leaves out without one.
.venv-numpyro/.done: benchmarks/requirements-numpyro.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info > (3, 11) else "NumPyro needs Python 3.11")' \
	    && $(PYTHON) -m venv .venv-numpyro \
	    && .venv-numpyro/bin/python -m pip --disable-pip-version-check install -q -r $< \
	    && touch $@ \
	    || { rm -rf .venv-numpyro; echo "NumPyro could not be installed with $(PYTHON)"; }

clean:  ## remove what was built
	rm -rf $(VENV) .venv-numpyro build dist out .mypy_cache .pytest_cache .ruff_cache
