# Thin calls of the command line. Values reach it through the environment, so that brackets and spaces survive the shell.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
OPTIONS := LOSS TASK MODEL CORPUS DATA_DIR WEIGHTING OBJECTIVE TRIALS UPDATES SEEDS WORKERS DEVICE PLUGIN STORAGE TRACKING_URI \
	MAX_HOURS EQUAL_TIME RACING NO_CONTROLS HOURS
export $(OPTIONS)
unexport PYTHONDONTWRITEBYTECODE  # every process of a study would compile its libraries anew

# --loss "$$LOSS" for each variable that is set.
option = $(if $($(1)),--$(2) "$$$(1)")
DATA_OPTIONS = $(call option,DATA_DIR,data-dir)
BENCH_OPTIONS = $(call option,LOSS,loss) $(call option,MODEL,model) $(call option,CORPUS,corpus) $(DATA_OPTIONS) \
	$(call option,WEIGHTING,weighting) $(call option,DEVICE,device) $(call option,PLUGIN,plugin) \
	$(call option,TRACKING_URI,tracking-uri)
STUDY_OPTIONS = $(BENCH_OPTIONS) $(call option,TASK,task) \
	$(call option,OBJECTIVE,objective) $(call option,TRIALS,trials) $(call option,UPDATES,updates) \
	$(call option,SEEDS,seeds) $(call option,WORKERS,workers) $(call option,STORAGE,storage) \
	$(call option,MAX_HOURS,max-hours) $(if $(EQUAL_TIME),--equal-time) $(if $(RACING),--racing) $(if $(NO_CONTROLS),--no-controls)

.DEFAULT_GOAL := help
.PHONY: help setup study plan compare soak data gate report results claims bench atlas ui test test-all lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
	@echo "options: $(OPTIONS) STUDY, as in: make study LOSS='si_sdr(max_db=20)' SEEDS=5"

setup: $(BIN)/.installed ## install into .venv (VENV=... moves it)

$(BIN)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'  # modules are compiled when first used
	touch $@

study: setup ## tune, confirm and rank LOSS (the quick form), or the study file STUDY
	@$(BIN)/harness study $(STUDY) $(STUDY_OPTIONS)

plan: setup ## what `make study` would run, reuse, and how long that takes
	@$(BIN)/harness plan $(STUDY) $(STUDY_OPTIONS)

compare: setup ## all losses of a task, STUDY=keywords; without it the full comparison of denoising losses (hours)
	@$(BIN)/harness study $(or $(STUDY),denoise) $(STUDY_OPTIONS)

soak: setup ## does every denoising loss train? fails where one does not improve on the mixture
	@$(BIN)/harness soak $(STUDY) $(STUDY_OPTIONS)

data: setup ## fetch and decode the recordings, check them
	@$(BIN)/harness data fetch $(if $(CORPUS),"$$CORPUS") $(DATA_OPTIONS)

gate: setup ## the unprocessed test set of VoiceBank-DEMAND beside what is published of it
	@$(BIN)/harness data gate $(DATA_OPTIONS)

report: setup ## write reports/ from the MLflow store alone
	@$(BIN)/harness report $(call option,TRACKING_URI,tracking-uri)

results: setup ## write docs/results/ and the results in README.md from the exports in docs/results/runs
	@$(BIN)/harness results

claims: setup ## what the literature claims of losses, held against the runs: holds, fails, cannot tell
	@$(BIN)/harness claims $(call option,TRACKING_URI,tracking-uri)

bench: setup ## what each loss, and the harness's own loop, costs on DEVICE; SCALE=1: the bookkeeping, HOURS='1 5 20': large corpora
	@$(BIN)/harness bench $(BENCH_OPTIONS) $(call option,STORAGE,storage) $(if $(SCALE),--scale) $(call option,HOURS,hours)

atlas: setup ## what each loss of a waveform minds, and what it is blind to
	@$(BIN)/harness atlas $(call option,LOSS,loss) $(DATA_OPTIONS) $(call option,PLUGIN,plugin)

ui: setup ## browse the runs in MLflow
	@$(BIN)/harness ui $(call option,TRACKING_URI,tracking-uri)

# Several processes, because most tests use one core; few, because some start studies with workers of their own. A file is run
# by one of them, so that its costly fixtures are made once.
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup ## the tests, real studies included
	@$(PYTEST) -m "not slow"

test-all: setup ## the long tests too
	@$(PYTEST)

lint: setup ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean: ## remove the environment and caches; recordings, runs and reports stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info build
