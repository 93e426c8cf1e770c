# The one command surface: people, CI and hooks call these targets. `make help` lists them.
# Copyright: Spokewright maintainers
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

SITES ?= 8
SCENARIO ?=
PYTEST_ARGS ?=
CASE ?=
LONG ?=
RUNS ?=
STORM ?=
export SPOKEWRIGHT_LONG := $(LONG)
export RUNS
# PYTHON=python3.12 chooses the interpreter .venv is made with (3.11 to 3.13); unset means python3.
export PYTHON

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Ansible refuses to run without a UTF-8 locale, and a bare machine or a CI job has none.
export LC_ALL := C.UTF-8
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Keep Ansible's, Molecule's and the linters' own files inside the checkout: nothing is read from or left in $HOME.
export ANSIBLE_HOME := $(CURDIR)/.ansible
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help demo test lint unit loopback molecule e2e fault failover storm sanity bench lab-down docs lock clean venv system
.PHONY: browser ready

help: ## list the commands
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | \
	  while IFS='|' read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

demo: ready ## a whole fleet on this machine: boot it, roll it out, show that it works (SITES=8)
	@tools/demo --sites $(SITES)

test: ready ## everything below from lint to sanity; prints how long each part took
	@SPOKEWRIGHT_KEEP_LAB=1 tools/parts lint,unit sanity,loopback molecule e2e storm failover lab-down

lint: venv ## ansible-lint (production), ruff, mypy --strict, yamllint, shellcheck
	@tools/lint

unit: ready ## unit tests (PYTEST_ARGS="-k name")
	@pytest tests/unit -n auto --dist worksteal $(PYTEST_ARGS)

loopback: ready ## our SSH, our keys and the agent against real programs on this machine, without the lab
	@pytest tests/loopback -n 4 --dist loadfile $(PYTEST_ARGS)

molecule: ready ## each role on lab hosts: converge, idempotence, verify (SCENARIO=ha_agent for one)
	@tools/molecule $(SCENARIO)

e2e: ready browser ## end-to-end tests on the lab (PYTEST_ARGS="-k name"; LONG=1 adds those that take long)
	@pytest tests/integration tests/faults $(PYTEST_ARGS)

fault: ready ## break the pair on the lab and judge what it does (CASE=owner-dead; without it: list the cases)
	@tools/fault $(CASE)

failover: ready ## each fault of the pair once, timed against targets that are doubled for a busy machine
	@bench/failover --sites 8 --quick --slack 2

sanity: venv ## ansible-test sanity on the built collection
	@tools/sanity

storm: ready ## every site of 40 loses its tunnel at once, timed against targets that are doubled for a busy machine
	@bench/storm --sites 40 --quick --slack 2

bench: ready ## benchmarks, each against its alternative, as ratios (STORM=400: only the storm, with so many sites)
	@set -e; if [ -n "$(STORM)" ]; then exec bench/storm --sites $(STORM) --down; fi; for bench in bench/*; do \
	  if [ -f "$$bench" ] && [ -x "$$bench" ]; then printf '\n==> %s\n' "$$bench"; "$$bench"; fi; done

lab-down: ## power off the lab and leave nothing of it behind
	@tools/lab down

docs: venv ## write the variable tables of the role READMEs from their argument_specs
	@tools/role_docs

lock: venv ## resolve requirements.in anew into requirements.lock
	@tools/lock

clean: ## power off the lab, then remove everything a fresh clone does not have: .venv, caches, the lab's inventory
	@if [ -x tools/lab ] && [ "$$(id -u)" -eq 0 ]; then tools/lab down; fi
	@rm -rf .venv .cache .ansible .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@git clean -fdxq inventories/lab
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What a target needs first; quick and silent when it is there.
venv:
	@tools/bootstrap python

system:
	@tools/bootstrap system

browser:
	@tools/bootstrap browser

ready: system venv
