# The commands of this repository. `make help` lists them; CI runs only these.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

# Rust may have been installed by scripts/install.sh in this run, before PATH has it.
export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin

# One target folder outside the clone, shared by all clones; set CARGO_TARGET_DIR to change it.
cache := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(cache)/tidewire/target

# One profile and always the whole workspace, so that `run` and `test` build nothing twice.
workspace := --release --workspace --locked

# With AS_FRESH=1, as in CI, tests see empty caches and only the commands that install.sh brings.
fresh := $(CARGO_TARGET_DIR)/as-fresh
runner := target."cfg(all())".runner=["$(CURDIR)/scripts/as-fresh.sh","run","$(fresh)"]

.PHONY: run kafka test check bench bench-derive soak fmt clean help test-fresh

run: ## Install what is missing, build, and serve the demo on 127.0.0.1:8080
	@scripts/install.sh run
	@scripts/build.sh
	@scripts/serve.sh dev --demo

kafka: ## Run Apache Kafka at 127.0.0.1:9092 until Ctrl-C, without Docker
	@scripts/install.sh kafka
	@scripts/kafka.sh run

test: ## Check format and lints, and run every test
	@scripts/install.sh test
	cargo fmt --all --check
	cargo clippy $(workspace) --all-targets -- --deny warnings
ifdef AS_FRESH
	cargo build $(workspace) --bin tidewire
	scripts/as-fresh.sh prepare $(fresh)
	TIDEWIRE_BIN=$(CARGO_TARGET_DIR)/release/tidewire \
	  cargo --config '$(runner)' test $(workspace) --no-fail-fast
else
	cargo test $(workspace) --no-fail-fast
endif

check: ## Check format and lints only
	@scripts/install.sh test
	cargo fmt --all --check
	cargo clippy $(workspace) --all-targets -- --deny warnings

bench: ## Run every benchmark and print its figures
	@scripts/install.sh test
	@scripts/bench.sh

bench-derive: ## Compare DERIVE with Kafka Streams (ARGS="--only tidewire --runs 1")
	@scripts/install.sh test
	@cargo build $(workspace) --bins
	@$(CARGO_TARGET_DIR)/release/bench-derive $(ARGS)

soak: ## Kill roles 1,000 times on both logs; can be continued (ARGS="--kills 100 --seed 7")
	@scripts/install.sh test
	@cargo build $(workspace) --bins
	@$(CARGO_TARGET_DIR)/release/soak $(ARGS)

fmt: ## Format the code
	cargo fmt --all

clean: ## Remove built files; data folders stay
	cargo clean

test-fresh: ## Test the install steps in a bare Debian 12 chroot (root; not part of CI)
	@scripts/test-fresh.sh

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
