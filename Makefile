# The commands of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
PYTHON_VENV := .venv/bin/python
# Where it is set, each of hundreds of programs would compile all that it imports, for up to two seconds.
unexport PYTHONDONTWRITEBYTECODE

# The folders of Python code; mypy refuses one that holds none yet.
PACKAGES := $(foreach folder,archiver bench infra jobs local migrations tests,$(if $(shell find $(folder) -name '*.py' 2>/dev/null | head -1),$(folder)))

# make test ARGS='-k flush -x'
ARGS ?=
# Test processes at once: two by default, since each holds connections and a database of its own.
WORKERS ?= 2

# make plan STACK=prod
STACK ?= dev

.PHONY: help up down psql url aws-env destroy test lint lint-python lint-sql bench plan preview bundle lock runtime infra dev server-packages

help: ## list these commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: runtime ## set up everything, migrate, and run live telemetry of this host through the platform
	@$(PYTHON_VENV) -m local up
	@echo '==> alembic upgrade head'
	@DATABASE_URL="$$($(PYTHON_VENV) -m local url)" && export DATABASE_URL && $(PYTHON_VENV) -m alembic upgrade head
	@$(PYTHON_VENV) -m local demo

down: runtime ## stop the local server, whose data stays, and the AWS emulator, whose data is gone
	@$(PYTHON_VENV) -m local down

psql: runtime ## a psql session on the local database
	@$(PYTHON_VENV) -m local psql

url: ## print the local DATABASE_URL and nothing else
	@requirements/install runtime >&2
	@$(PYTHON_VENV) -m local url

aws-env: ## print what a shell evaluates to use the local AWS emulator: eval "$(make aws-env)"
	@requirements/install runtime >&2
	@$(PYTHON_VENV) -m local aws-env

destroy: runtime ## stop the local server and remove its data (asks first)
	@$(PYTHON_VENV) -m local destroy $(ARGS)

test: dev server-packages ## the lint, then the whole test suite (ARGS='-k flush' for a part)
	@lint=0; tests=0; \
	$(MAKE) lint || lint=1; \
	echo '==> pytest'; \
	$(PYTHON_VENV) -m pytest -n $(WORKERS) $(ARGS) || tests=$$?; \
	if [ $$lint != 0 ]; then echo 'make test: the lint failed, its findings are above the tests' >&2; fi; \
	exit $$((lint | tests))

# Each check runs whether or not the one before it failed.
LINT_PYTHON = for check in 'ruff check .' 'ruff format --check .' 'mypy --strict $(PACKAGES)'; do \
	echo "==> $$check"; $(PYTHON_VENV) -m $$check || status=1; done
LINT_SQL = $(PYTHON_VENV) -m migrations.lint || status=1

lint: dev server-packages ## ruff, mypy, sqlfluff, squawk, pglast, plpgsql_check
	@status=0; $(LINT_PYTHON); $(LINT_SQL); exit $$status

lint-python: dev
	@status=0; $(LINT_PYTHON); exit $$status

lint-sql: dev server-packages
	@status=0; $(LINT_SQL); exit $$status

bench: dev server-packages ## side by side with the reference design (QUICK=1: under 3 minutes)
	@$(PYTHON_VENV) -m bench table $(if $(QUICK),--quick) $(ARGS)

plan: infra ## what a stack would be, offline: resources, policies, cost, picture (STACK=prod; ARGS='--diff dev')
	@$(PYTHON_VENV) -m infra plan $(STACK) $(ARGS)

preview: infra ## pulumi preview of a stack (STACK=prod); needs the pulumi CLI and an account
	@command -v pulumi >/dev/null || { echo 'make preview: no pulumi CLI here (https://www.pulumi.com/docs/install/); make plan does without' >&2; exit 1; }
	@pulumi preview --stack $(STACK) $(ARGS)

bundle: runtime infra ## build what the Lambda functions run, where it is not there or was built from other sources
	@$(PYTHON_VENV) -m infra bundle

LOCK := $(PYTHON_VENV) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --strip-extras \
	--no-header --no-emit-index-url --no-emit-find-links --upgrade

lock: dev ## choose the newest versions of every dependency and lock them with hashes
	@echo '==> requirements/runtime.txt'
	@$(LOCK) -o requirements/runtime.txt requirements/runtime.in
	@echo '==> requirements/jobs.txt'
	@$(LOCK) -c requirements/runtime.txt -o requirements/jobs.txt requirements/jobs.in
	@echo '==> requirements/infra.txt'
	@$(LOCK) -c requirements/runtime.txt -o requirements/infra.txt requirements/infra.in
	@echo '==> requirements/dev.txt'
	@$(LOCK) -c requirements/runtime.txt -c requirements/infra.txt -o requirements/dev.txt requirements/dev.in

runtime:
	@requirements/install runtime

infra:
	@requirements/install infra

dev:
	@requirements/install dev

# The server programs that the tests and the lint start a throw-away server from.
server-packages: dev
	@$(PYTHON_VENV) -m local install
