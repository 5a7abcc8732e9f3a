#!/usr/bin/env bash
# Builds the binary `tidewire`. A first build reports its progress and the minutes it still takes.
#
# Features are those of the whole workspace, so that `make test` finds every dependency compiled;
# what is compiled is only what the binary needs. RocksDB is two thirds of a first build, so its
# object files count, not only finished crates. Cargo itself reports neither minutes nor files.
set -euo pipefail

build=(cargo build --release --workspace --locked --bin tidewire)
# Later builds take seconds to a minute; Cargo's own progress is enough.
if [ -e "$CARGO_TARGET_DIR/release/tidewire" ]; then exec "${build[@]}"; fi

# Parts of a first build in percent, by `cargo build --timings` on two cores; crates take the rest.
rocksdb_percent=70
rocksdb_files=342
every_seconds=5

say() { printf 'tidewire: %s\n' "$*" >&2; }

say "fetching what is missing from the registry"
cargo fetch --locked --quiet --target "$(rustc -vV | sed -n 's/^host: //p')"
# Each crate prints one line with its version; the tree lists some of them again.
crates=$(cargo tree --locked --offline --package tidewire-app --edges normal,build --prefix none |
  awk '!seen[$1 $2]++' | wc -l)
say "first build: $crates crates, RocksDB and librdkafka among them"

messages=$(mktemp)
cargo=
# Ends cargo with all its compilers: they are a process group, which Ctrl-C does not reach.
finish() {
  if [ -n "$cargo" ]; then kill -TERM -- "-$cargo" 2>/dev/null || true; fi
  rm -f "$messages"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
set -m
"${build[@]}" --quiet --message-format json-render-diagnostics >"$messages" </dev/null &
cargo=$!
set +m

# percent: how much of the whole work is done.
percent() {
  local done_crates objects
  done_crates=$(grep -o '"reason":"compiler-artifact","package_id":"[^"]*"' "$messages" |
    sort -u | wc -l || true)
  objects=$(find "$CARGO_TARGET_DIR/release/build" -path '*/librocksdb-sys-*/out/*.o' 2>/dev/null |
    wc -l)
  ((objects <= rocksdb_files)) || objects=$rocksdb_files
  echo $((objects * rocksdb_percent / rocksdb_files +
    done_crates * (100 - rocksdb_percent) / (crates + 1)))
}

# report PERCENT: one line that is written over on a terminal, and a line a minute elsewhere.
report() {
  local left='' seconds=$SECONDS compiled=$(($1 - begun))
  if ((compiled >= 3)); then
    left=$(((seconds * (100 - $1) / compiled + 59) / 60))
    left=", about $left min left"
  fi
  if [ -t 2 ]; then
    printf '\r\033[Ktidewire: compiled %d %%, %d min %02d s%s' \
      "$1" $((seconds / 60)) $((seconds % 60)) "$left" >&2
  elif ((seconds / 60 > reported)); then
    reported=$((seconds / 60))
    say "compiled $1 %, $reported min$left"
  fi
}

reported=0
SECONDS=0
# An interrupted build has left parts that cost no time now.
begun=$(percent)
while kill -0 "$cargo" 2>/dev/null; do
  report "$(percent)"
  sleep "$every_seconds" &
  wait -n "$cargo" $! 2>/dev/null || true
  kill $! 2>/dev/null || true
done
if [ -t 2 ]; then printf '\r\033[K' >&2; fi
status=0
wait "$cargo" || status=$?
cargo=
if ((status != 0)); then
  say "the build failed; see the errors above"
  exit 1
fi
say "built in $((SECONDS / 60)) min $((SECONDS % 60)) s"
