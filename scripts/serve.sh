#!/usr/bin/env bash
# Starts the built binary for `make run`, so that Ctrl-C drains it and `make` exits with its code.
#
# On a terminal the server gets a foreground process group of its own. Ctrl-C then reaches only the
# server, which drains, and make sees its exit code instead of ending by the same signal. If this
# shell is killed, the server gets SIGTERM and drains too.
set -euo pipefail

server=$CARGO_TARGET_DIR/release/tidewire
if [ -t 0 ] && command -v setpriv >/dev/null; then
  set -m
  setpriv --pdeathsig TERM "$server" "$@"
else
  exec "$server" "$@"
fi
