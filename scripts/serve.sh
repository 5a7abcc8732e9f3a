#!/usr/bin/env bash
# Starts the built binary for `make run`, so that Ctrl-C reaches it and `make` still ends well.
#
# On a terminal the server becomes the foreground process group of its own: Ctrl-C then reaches it
# alone, it drains, and make sees its exit code instead of dying of the same signal. If this shell
# is killed, the server is told to drain too.
set -euo pipefail

server=$CARGO_TARGET_DIR/release/tidewire
if [ -t 0 ] && command -v setpriv >/dev/null; then
  set -m
  setpriv --pdeathsig TERM "$server" "$@"
else
  exec "$server" "$@"
fi
