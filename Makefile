# The verbs of this repository. `make help` lists them; CI runs only these.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

# A Rust installed a moment ago by scripts/install.sh is found without a new shell.
export PATH := $(PATH):$(HOME)/.cargo/bin

# One target folder outside the clone, shared by every clone; override it by setting it.
cache := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(cache)/tidewire/target

# One profile and always the whole workspace, so that `run` and `test` build nothing twice.
workspace := --release --workspace --locked

.PHONY: run kafka test check bench bench-derive soak fmt clean help test-fresh

run: ## Install what is missing, build, and serve the demo on 127.0.0.1:8080
	@scripts/install.sh run
	@scripts/build.sh
	@scripts/serve.sh dev --demo

kafka: ## A real Apache Kafka at 127.0.0.1:9092 until Ctrl-C, without Docker
	@scripts/install.sh kafka
	@scripts/kafka.sh run

test: ## Everything that must hold: format, lints, and every test
	@scripts/install.sh test
	cargo fmt --all --check
	cargo clippy $(workspace) --all-targets -- --deny warnings
	cargo test $(workspace) --no-fail-fast

check: ## Format and lints only
	@scripts/install.sh test
	cargo fmt --all --check
	cargo clippy $(workspace) --all-targets -- --deny warnings

bench: ## The figures of the README, measured on this machine
	@scripts/install.sh test
	@scripts/bench.sh

bench-derive: ## DERIVE against Kafka Streams, side by side (ARGS="--only tidewire --runs 1")
	@scripts/install.sh test
	@cargo build $(workspace) --bins
	@$(CARGO_TARGET_DIR)/release/bench-derive $(ARGS)

soak: ## Kill roles 1,000 times on both logs; goes on where it was (ARGS="--kills 100 --seed 7")
	@scripts/install.sh test
	@cargo build $(workspace) --bins
	@$(CARGO_TARGET_DIR)/release/soak $(ARGS)

fmt: ## Format the code
	cargo fmt --all

clean: ## Remove what was built (data folders stay)
	cargo clean

test-fresh: ## Prove the install steps in a bare Debian 12 chroot (root; not part of CI)
	@scripts/test-fresh.sh

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
