#!/usr/bin/env bash
# Tests the install steps on a bare Debian 12: a debootstrap chroot with git, make and a Rust
# toolchain, a fresh clone of HEAD in it, `make run` until the ready line, one event, Ctrl-C.
#
# The chroot uses the toolchain and the registry of this machine, read-only where cargo allows it,
# so that only Tidewire's own steps are tested. Needs root (or sudo) and the network, and takes a
# full build. Not part of CI.
#
# FRESH_DIR: folder of the chroot (default: a temporary one, removed at the end).
# FRESH_TARGET: a target folder of this machine to build in instead of an empty one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'test-fresh: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || stop "run it as root: chroot needs that"
  exec sudo -E env "PATH=$PATH" "HOME=$HOME" "$0" "$@"
fi
command -v debootstrap >/dev/null || {
  say "missing: debootstrap (creates the bare Debian); installing it"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends debootstrap >&2
}

fresh=${FRESH_DIR:-$(mktemp -d)}
log=$fresh/run.log
mounts=()

clean() {
  if [ -n "${server:-}" ]; then kill -TERM -- "-$server" 2>/dev/null || true; fi
  for ((i = ${#mounts[@]} - 1; i >= 0; i--)); do umount -l "${mounts[i]}" || true; done
  [ -n "${FRESH_DIR:-}" ] || rm -rf --one-file-system "$fresh"
}
trap clean EXIT

lend() {
  mkdir -p "$fresh$2"
  mount --bind "$1" "$fresh$2"
  mounts+=("$fresh$2")
  [ "${3:-}" = rw ] || mount -o remount,bind,ro "$fresh$2"
}

inside() {
  chroot "$fresh" /usr/bin/env -i HOME=/fresh CARGO_HOME=/lent/cargo RUSTUP_HOME=/lent/rustup \
    PATH=/lent/cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
}

if [ ! -e "$fresh/usr/bin/git" ]; then
  say "creating a bare Debian 12 in $fresh"
  debootstrap --variant=minbase --include=git,make,ca-certificates,curl bookworm \
    "$fresh" \
    >"$fresh.debootstrap.log" 2>&1 || stop "debootstrap failed; see $fresh.debootstrap.log"
  rm -f "$fresh.debootstrap.log"
fi

cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$fresh/lent/cargo" "$fresh/fresh"
mount -t proc proc "$fresh/proc"
mounts+=("$fresh/proc")
lend "${RUSTUP_HOME:-$HOME/.rustup}" /lent/rustup
lend "$cargo_home/bin" /lent/cargo/bin
# Cargo writes to its registry, so it gets a copy.
[ -e "$fresh/lent/cargo/registry" ] || cp -a "$cargo_home/registry" "$fresh/lent/cargo/registry"
if [ -e "$cargo_home/config.toml" ]; then cp "$cargo_home/config.toml" "$fresh/lent/cargo/"; fi
cp /etc/resolv.conf "$fresh/etc/resolv.conf"
if [ -n "${FRESH_TARGET:-}" ]; then
  lend "$FRESH_TARGET" /fresh/.cache/tidewire/target rw
fi

for package in g++ libclang-dev; do
  inside dpkg-query -W -f '' "$package" 2>/dev/null && [ -z "${FRESH_DIR:-}" ] &&
    stop "$package is installed already; the chroot is not bare"
done

say "cloning HEAD into it"
rm -rf "$fresh/fresh/tidewire"
git clone -q --no-hardlinks . "$fresh/fresh/tidewire"

say "make run, until it is ready"
set -m # a process group of its own, so that none of its processes outlives this script
inside sh -c 'cd /fresh/tidewire && exec make run' </dev/null >"$log" 2>&1 &
server=$!
until grep -q 'tidewire is ready' "$log"; do
  kill -0 "$server" 2>/dev/null || {
    tail -n 30 "$log" >&2
    stop "make run ended before it was ready; see $log"
  }
  sleep 1
done
grep -E '^tidewire: (missing|installing)' "$log" >&2 || true

url=$(sed -n 's/.*is ready: page \(http:[^ ]*[0-9]\).*/\1/p' "$log" | head -n 1)
say "it is ready at $url; waiting for an event of the demo"
stream=$(inside timeout 20 curl -sN "$url/v1/sse?channels=timeline:demo" || true)
grep -q '^data: ' <<<"$stream" || stop "no event came within 20 s"

say "Ctrl-C"
kill -INT "$(pgrep -g "$server" -x tidewire)"
wait "$server" || stop "make run ended with an error after Ctrl-C"
server=
say "done: the install steps work on a bare Debian 12"
