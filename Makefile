# Everything runs from .venv, which the first target that needs it makes; needs Python >= 3.11 and make.
#   make train ARGS="--model.alpha 0.1"     passes options on (train, test, test-full, marks, verify-resume)
#   make install PYTHON=python3.12          takes another interpreter
#   make install TORCH_INDEX=URL            takes torch from another package index (its CPU builds, say)

SHELL := bash
PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
CONFIG ?= configs/cql.yaml
STEPS ?= 2000
N ?= 12
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The scorecard's policies: a run's first checkpoint and its last.
EVERY := --checkpoint.save_top_k=-1
LOG := $(VENV)/install.log
# Side by side; small tensors gain nothing from threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
# The environment variables pin what builds a package as well (setuptools); which one does depends on pip's age.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip install --no-compile --disable-pip-version-check --no-input --progress-bar off
# pip compiles on one core, which is half of its time. What packages hold for their own tests is
# left out, and what a later Python alone can read fails without harm.
COMPILE := { $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install lint format type test test-full train tensorboard grid reproduce reproduce-more choosing scorecard \
	marks safety ablation gains temperatures benchmark verify-resume verify-kill verify-damage \
	verify-options docs clean

help: ## show this list
	@echo "sepsis-rl: treatment policies for sepsis, learned from records"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name what; do printf '  make %-14s %s\n' "$$name" "$$what"; done
	@echo
	@sed -n 's/^#   \(make .*\)/  \1/p' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## make .venv with the pinned dependencies (the other targets do it when they need it)

lint: $(STAMP) ## check style and format (ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP) ## format the code and mend what can be mended (ruff)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

type: $(STAMP) ## check types (mypy --strict)
	@$(BIN)/mypy --num-workers auto

test: lint type docs ## check style, types and documentation, run the tests without the slow ones
	@$(PYTEST) -m "not slow" $(ARGS)

test-full: lint type docs ## the same with all tests
	@$(PYTEST) $(ARGS)

train: $(STAMP) ## train CQL: lightning fit --config configs/cql.yaml
	@$(BIN)/lightning fit --config configs/cql.yaml $(ARGS)

tensorboard: $(STAMP) ## show the curves of all runs in a browser
	@$(BIN)/tensorboard --logdir runs $(ARGS)

# $(call run,NAME,CONFIG,OPTIONS) trains a run, goes on with one that was stopped, leaves a finished one.
run = ls runs/$(1)/version_*/metrics.json >/dev/null 2>&1 || $(BIN)/lightning fit --config configs/$(2).yaml $(3) \
	--trainer.logger.init_args.name $(1) \
	$$(ls runs/$(1)/version_*/checkpoints/last.ckpt >/dev/null 2>&1 && echo --ckpt_path last)
# $(call finished,RUNS) lists the folders of those that ended.
finished = $$(for file in $(1:%=runs/%/version_*/metrics.json); do dirname $$file; done)
# Commas inside a call would end its argument.
SEEDS := [42,123,456]
EXTREMES := [0.0,0.5]
SPREAD := [0.0,0.05,0.1,0.5,2.0]
GRID := essay-bc essay-cql
DATA_SEEDS := 1 2 3 4
HALF := --trainer.max_steps 50000
# $(call vary,NAME,OPTIONS) varies one thing of the grid, at alpha 1 and for fewer steps.
vary = $(call run,essay-$(1),essay/sweep,--model.alpha 1.0 --trainer.max_steps 20000 $(2))
DEEPER := [256,256,256]
RATES := [1.0e-4,1.0e-3,3.0e-3]
COMMA := ,

grid: $(STAMP) ## train the essay's grid: BC x 3 seeds, CQL 7 alphas x 3 seeds; goes on after a stop
	@$(call run,essay-bc,essay/bc,--model.seed '$(SEEDS)')
	@$(call run,essay-cql,essay/sweep)

reproduce: grid ## the essay's experiment: train the grid, then the report next to the truth
	@$(BIN)/lightning report $(call finished,$(GRID)) --output reproduction $(ARGS)

reproduce-more: grid ## the same with four more data sets, and sizes, networks and rates varied
	@for seed in $(DATA_SEEDS); do \
		$(call run,essay-bc-data-$$seed,essay/bc,--model.seed '$(SEEDS)' --data.seed $$seed $(HALF)) || exit; \
		$(call run,essay-cql-data-$$seed,essay/sweep,--model.alpha '$(EXTREMES)' --data.seed $$seed $(HALF)) || exit; \
	done
	@for size in 1000 10000 50000 100000; do \
		$(call vary,episodes-$$size,--data.episodes $$size) || exit; \
	done
	@for width in 64 128 512; do \
		$(call vary,width-$$width,--model.embedding_dim $$width --model.hidden_dims "[$$width$(COMMA)$$width]") || exit; \
	done
	@$(call vary,depth-3,--model.hidden_dims '$(DEEPER)')
	@$(call vary,learning-rate,--model.learning_rate '$(RATES)')
	@$(BIN)/lightning report $(call finished,$(GRID) essay-*) --output reproduction-more $(ARGS)

choosing: $(STAMP) ## what choosing from records costs, by criterion and candidates; goes on after a stop
	@$(BIN)/python benchmarks/choosing.py $(ARGS)

scorecard: $(STAMP) ## hold estimates from recorded data against the truth: a quarter of an hour
	@$(call run,scorecard-bc,bc,$(EVERY))
	@$(call run,scorecard-cql,sweep,--model.alpha '$(SPREAD)' --model.seed 42 --model.actions all $(EVERY))
	@$(BIN)/lightning scorecard $(call finished,scorecard-bc scorecard-cql) --output scorecard --data_sets 30 $(ARGS)

marks: $(STAMP) ## what each way to learn is worth from 1,000, 5,000 and 50,000 episodes; goes on after a stop
	@$(BIN)/python benchmarks/marks.py $(ARGS)

safety: $(STAMP) ## how often what few records teach is worse than the clinicians; goes on after a stop
	@$(BIN)/python benchmarks/safety.py $(ARGS)

ablation: $(STAMP) ## what made the essay's CQL fail: its settings changed one at a time; goes on after a stop
	@$(BIN)/python benchmarks/ablation.py $(ARGS)

gains: $(STAMP) ## who gains by a learned policy, by which doses, and what its Q-values promise
	@$(BIN)/python benchmarks/gains.py $(ARGS)

temperatures: $(STAMP) ## CQL by alpha and temperature, on rows (hours) and all records; goes on after a stop
	@$(BIN)/python benchmarks/temperatures.py $(ARGS)

benchmark: $(STAMP) ## measure the speed of environment and training, one after the other: half an hour
	@for name in env ope fit whole mark; do $(BIN)/python benchmarks/bench_$$name.py || exit; done

verify-resume: $(STAMP) ## kill and resume a run of CONFIG for STEPS steps, compare it with one left alone
	@$(BIN)/python benchmarks/verify_resume.py --config $(CONFIG) --steps $(STEPS) $(ARGS)

verify-kill: $(STAMP) ## kill and resume the four kinds of runs N times, count identical ends: half a minute to a minute each
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/verify_resume.py --kills $(N) --steps 300 $(ARGS)

verify-damage: $(STAMP) ## damage 2,016 data files and a thousand checkpoints, count what is refused: some minutes
	@$(PYTEST) tests/data/test_garbage.py tests/runs/test_untrusted.py $(ARGS)

verify-options: $(STAMP) ## give every option of every command what it cannot be, count what is refused: an hour
	@$(PYTEST) tests/cli/test_every_option.py $(ARGS)

# The variable silences a notice about mkdocs-material's successor.
docs: $(STAMP) ## build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove .venv and caches; runs/ and data/ stay
	@rm -rf $(VENV) build dist site *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find sepsis_rl tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
		echo "No '$(PYTHON)' here: install Python 3.11 or newer, or name one: make install PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, '$(PYTHON)' is $$($(PYTHON) --version 2>&1); name another: make install PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments (Debian, Ubuntu: install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing sepsis-rl and $$(grep -c '^[^#].*==' constraints.txt) pinned packages into $(VENV): some minutes, most of them for torch"
	@set -o pipefail; started=$$SECONDS; \
	{ $(if $(TORCH_INDEX),$(PIP) --no-deps --index-url $(TORCH_INDEX) torch &&) $(PIP) -e '.[dev]' && $(COMPILE); } 2>&1 | tee $(LOG) \
	| while read -r word rest; do case "$$word $$rest" in \
		Downloading*MB\)|Using\ cached*MB\)) echo "  $$word $$rest" ;; \
		Building\ wheel*\ started) echo "  $$word $${rest%: started}" ;; \
		Installing\ collected*) echo "  Unpacking and compiling, a minute or two" ;; esac; done \
	|| { tail -n 20 $(LOG) >&2; echo "The installation failed; all of it is in $(LOG)" >&2; exit 1; }; \
	echo "Installed in $$((SECONDS - started)) s"
	@touch $@
