#!/usr/bin/env bash
# Runs every benchmark, one after the other, and prints its figures. Benchmarks are the binaries of
# the tests crate whose names begin with `bench-`. Arguments select some of them.
set -euo pipefail

cargo build --release --workspace --locked --bins
if [ $# -eq 0 ]; then
  mapfile -t names < <(find "$CARGO_TARGET_DIR/release" -maxdepth 1 -type f -perm -u+x \
    -name 'bench-*' -printf '%f\n' | sort)
  [ ${#names[@]} -gt 0 ] || { echo 'tidewire: no benchmark was built' >&2; exit 1; }
else
  names=("$@")
fi
for name in "${names[@]}"; do
  printf '\n== %s\n' "$name"
  "$CARGO_TARGET_DIR/release/$name"
  if [ "$name" = bench-pipeline ]; then
    "$CARGO_TARGET_DIR/release/$name" --log kafka --warm-up 60
  fi
  if [ "$name" = bench-skew ]; then
    "$CARGO_TARGET_DIR/release/$name" --users 1000000
  fi
done
