# `make` alone prints what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
NODES ?= 4
ENGINE ?= sim

.PHONY: help system setup demo test test-fast test-plan test-docs test-hub test-walk test-lab test-crash test-contract contracts bench bench-small lab-up lab-down lint fmt

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The packages come before the environment, which python3-venv makes.
.NOTPARALLEL:

system: ## install the system packages that are missing (SPARKFLEET_NO_APT=1: none)
	@python3 tests/system.py

setup: $(VENV)/.ready ## make .venv with everything the tool and its tests need

$(VENV)/.ready: pyproject.toml
	@if command -v uv >/dev/null; then \
		uv venv --quiet --seed --allow-existing $(VENV) && uv pip install --quiet --python $(PYTHON) --group dev -e .; \
	else \
		python3 -m venv $(VENV) && $(PYTHON) -m pip install --quiet --upgrade 'pip>=25.1' && \
		PYTHONWARNINGS=ignore $(PYTHON) -m pip install --quiet --group dev -e .; \
	fi
	@touch $@

demo: system setup ## four booted hosts become four verified servers, upgraded and rolled back
	@$(PYTHON) -m tests.demo

test: system setup ## every tier that this machine can run
	@$(PYTHON) -m tests.tiers all

test-fast: setup ## lint, types and unit tests
	@$(PYTHON) -m tests.tiers fast

test-plan: setup ## the real command line over fake hosts
	@$(PYTHON) -m tests.tiers plan

test-docs: setup ## every command of the documentation, on fake hosts
	@$(PYTHON) -m tests.tiers docs

test-hub: system setup ## the real Hub client against a hub that fails in every way
	@$(PYTHON) -m tests.tiers hub

test-walk: setup ## random walks of a small fleet; SPARKFLEET_WALKS=1000 for more
	@$(PYTHON) -m tests.tiers walk

test-lab: system setup ## booted hosts, real systemd, sshd, dockerd and registry
	@$(PYTHON) -m tests.tiers lab

test-crash: system setup ## the whole crash matrix: who dies at which line of the journal
	@$(PYTHON) -m tests.tiers crash-all

test-contract: system setup ## every rendered recipe through the real vLLM argument parser
	@$(PYTHON) -m tests.tiers contract

contracts: setup ## record the command line of every pinned engine anew and print what changed
	@$(PYTHON) -m tests.contract.record && $(PYTHON) -m tests.sglang.environment

bench: system setup ## every benchmark in a quarter of an hour, as root; writes docs/benchmarks.md
	@$(PYTHON) -m tests.bench

bench-small: system setup ## little of every benchmark, to see that they work
	@$(PYTHON) -m tests.bench --small

lab-up: system setup ## boot the lab: make lab-up NODES=4 [ENGINE=vllm]
	@$(PYTHON) -m tests.lab up --nodes $(NODES) --engine $(ENGINE)

lab-down: setup ## take down everything the lab made
	@$(PYTHON) -m tests.lab down

lint: setup ## ruff and mypy
	@$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check . && $(VENV)/bin/mypy

fmt: setup ## let ruff rewrite
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .
