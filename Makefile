# Two commands do everything: `make demo` and `make test`. Each sets up what it needs first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup engine demo test test-long lint format bench lock contracts clean

help: ## show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## virtual environment, Python packages, npm packages (fast the second time)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/setup.sh

demo: setup ## mints become images, pinned content and on-chain reveals, on a chain of your own
	@$(BIN)/causeway demo $(if $(APP),--app $(APP)) $(ARGS)

engine: setup ## what executes Starknet's contracts, apart from our own packages (once, 230 MB)
	@$(BIN)/python -m causeway.sandbox.starknet

test: engine ## everything but the runs that take minutes
	$(BIN)/pytest -m "not long" -n $(JOBS) --dist loadgroup $(ARGS)

test-long: engine ## the long fault, load and property runs
	$(BIN)/pytest -m long -n $(JOBS) --dist loadgroup $(ARGS)

lint: setup ## style, types, import rules, contracts built from their sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python scripts/lint_deploy.py
	$(BIN)/python scripts/node.py contracts/build.mjs --check

format: setup ## put the code in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## one benchmark: make bench NAME=pipelines
	$(BIN)/python -m bench $(NAME) $(ARGS)

lock: setup ## resolve the Python dependencies again
	$(BIN)/uv pip compile pyproject.toml --group dev --extra wisp --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --upgrade -q -o requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml --extra wisp -c requirements-dev.lock --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate -q -o requirements.lock

contracts: setup ## compile the reference contracts
	$(BIN)/python scripts/node.py contracts/build.mjs

clean: ## forget the set-up and everything the demo left
	rm -rf $(VENV) node_modules .causeway
