# What a person needs. Every target sets up .venv from the hashed lock first.
SHELL := /bin/bash
PYTHON ?= python3.11
ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)
PYTHON := python3
endif
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup run flow test test-all benchmarks matrix check format lock clean example remote ci-pull ci-push ci-line ci-comment ci-post ci-retrain ci-propose ci-release ci-publish

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## make .venv from the hashed lock

# An environment shared with another project (a link) is that project's to renew.
$(VENV)/.installed: requirements-dev.lock infra/uv.lock.txt
	@if [ ! -L $(VENV) ]; then \
	  echo "Setting up $(VENV) from requirements-dev.lock (about 6 GB, a minute or so)" && \
	  $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed; name it: make PYTHON=/path/to/python3.11")' && \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r infra/uv.lock.txt && \
	  $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements-dev.lock; \
	fi
	@touch $@

run: setup       ## the whole line with params.yaml, through DVC; ends with a summary
	@python -m pipelines repro

flow: setup      ## the same line as a Prefect flow
	@python -m pipelines run

example: setup   ## another project beside this one, from examples/: make example EXAMPLE=emoji
	@test -f examples/$(EXAMPLE)/params.yaml || { echo "make example EXAMPLE=NAME, one of: $$(ls examples)"; exit 2; }
	python -m pipelines new ../$(notdir $(CURDIR))-$(EXAMPLE) --example $(EXAMPLE)
	cd ../$(notdir $(CURDIR))-$(EXAMPLE) && python examples/$(EXAMPLE)/prepare.py && python -m pipelines repro

test: setup      ## the tests that CI runs
	@python -m pytest

test-all: setup  ## these and the slow ones
	@python -m pytest -m "not gpu"

benchmarks: setup ## measure what is promised to be fast; each prints a table
	@missed=; for one in tests/benchmarks/*.py; do echo "$$one"; python "$$one" || missed="$$missed $$one"; done; \
	if [ -n "$$missed" ]; then echo "not as promised:$$missed"; exit 1; fi

matrix: setup    ## make a model ten times in ten surroundings, for images and for texts: the same bytes? (half an hour)
	@python tests/reproducibility/matrix.py

check: setup     ## format, lint, types, import contracts
	@ruff format --check . && ruff check . && mypy && lint-imports

format: setup    ## put the code in order
	@ruff format . && ruff check --fix .

lock: setup      ## renew the locks after pyproject.toml changed
	uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate --no-header --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	grep -A99 '^uv==' requirements.lock | awk '/^uv==/ {on=1} on && /^[a-z]/ && !/^uv==/ {exit} on {print}' > infra/uv.lock.txt
	python infra/extras/make_locks.py
	@$(MAKE) --no-print-directory setup && python -m pipelines.libraries

# Of .graftline: what runs and notices tell, what serve and the monitor remember, and files that somebody may hold locked.
KEPT := runs notices.jsonl notices.lock prefect prefect-server.log monitor run.lock serve.json watch.json locks

clean:           ## remove what runs left, but not their records (artifacts can be had again from DVC's cache: dvc checkout)
	@if [ -e .graftline/run.lock ] && command -v flock > /dev/null && ! flock --nonblock .graftline/run.lock true; then \
	  echo "A run works here; clean when it has ended (python -m pipelines runs)"; exit 2; fi
	rm -rf artifacts/.building reports; [ ! -d .graftline ] || find .graftline -mindepth 1 -maxdepth 1 $(patsubst %,! -name '%',$(KEPT)) -exec rm -rf {} +

remote: setup    ## what DVC needs for a store in a cloud: make remote KIND=s3 (or gs, azure)
	@test -f infra/extras/dvc-$(KIND).lock || { echo "make remote KIND=NAME, one of: s3 gs azure"; exit 2; }
	@uv pip install --quiet --require-hashes --python $(BIN)/python -r infra/extras/dvc-$(KIND).lock -c requirements.lock

# What .github/workflows and infra/ci/gitlab.yml do, step by step; infra/README.md tells what each reads.
ci-pull: setup   ## CI: fetch what DVC's remote holds of this commit, if the project has one
	@infra/ci/steps.sh pull

ci-push: setup   ## CI: send what the run made to DVC's remote
	@infra/ci/steps.sh push

ci-line: setup   ## CI: run the line; fails if it was refused
	@infra/ci/steps.sh line

ci-comment: setup ## CI: write .graftline/ci/comment.md against the commit BASE
	@infra/ci/steps.sh comment

ci-post:         ## CI: post that comment to the pull request; needs Python and a token alone
	@python3 infra/ci/post.py comment .graftline/ci/comment.md

ci-retrain: setup ## CI: newer data, the line, and its record on a branch; REASON says why
	@infra/ci/steps.sh retrain

ci-propose:      ## CI: push that branch and open a pull request; needs git, Python and a token alone
	@infra/ci/steps.sh propose

ci-release: setup ## CI: sign the bundle by the key in RELEASE_KEY, as VERSION or the next
	@infra/ci/steps.sh release

ci-publish:      ## CI: push the tag of the version
	@infra/ci/steps.sh publish
