#!/usr/bin/env bash
# Installs what building and running Tidewire needs and this machine lacks, and nothing else.
# Each missing thing is named with its reason first. Usage: scripts/install.sh run|test|kafka
set -euo pipefail

purpose=${1:-run}
rust_wanted=1.89
missing=()

say() { printf 'tidewire: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

# need PACKAGE WHY TEST…: remembers PACKAGE as missing when the command TEST fails.
need() {
  local package=$1 why=$2
  shift 2
  if ! "$@" >/dev/null 2>&1; then
    say "missing: $package ($why)"
    missing+=("$package")
  fi
}

has_libclang() {
  compgen -G "${LIBCLANG_PATH:-/nowhere}/libclang*.so*" ||
    { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' &&
      compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h'; } ||
    ldconfig -p | grep -q 'libclang\.so'
}

# A Java that runs Kafka and compiles for it, whoever packaged it.
has_jdk() {
  command -v java && [ "$(javac -version 2>&1 | sed 's/^javac \([0-9]*\).*/\1/')" -ge 17 ]
}

need_kafka() {
  need default-jdk-headless "Kafka runs on Java 17 or newer, and some of it is compiled" has_jdk
  need maven "it fetches Apache Kafka" command -v mvn
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
  else
    return 127
  fi
}

install_packages() {
  [ ${#missing[@]} -gt 0 ] || return 0
  local by_hand="apt-get install --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null ||
    stop "this system has no apt-get; install the equivalents of: ${missing[*]}"
  say "installing: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 ||
    stop "could not update the package list as root; run as root: $by_hand"
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 ||
    stop "could not install; run as root: $by_hand"
}

install_rust() {
  command -v cargo >/dev/null && return 0
  say "missing: Rust $rust_wanted or newer (Tidewire is written in it)"
  local url=https://sh.rustup.rs
  local by_hand="get it from https://rustup.rs (curl --proto '=https' -sSf $url | sh)"
  command -v curl >/dev/null || stop "$by_hand, then run make again"
  curl --proto '=https' --max-time 10 -sSfIo /dev/null "$url" ||
    stop "$url does not answer; $by_hand, then run make again"
  say "installing Rust through rustup into ${CARGO_HOME:-$HOME/.cargo}"
  curl --proto '=https' -sSf "$url" | sh -s -- -y --profile minimal --no-modify-path >&2
}

check_rust() {
  local have
  have=$(rustc --version | awk '{ print $2 }') ||
    stop "cargo is there but rustc does not run; try: rustup toolchain install stable"
  [ "$(printf '%s\n%s\n' "$rust_wanted" "$have" | sort -V | head -n 1)" = "$rust_wanted" ] ||
    stop "Rust $have is too old, $rust_wanted is needed; try: rustup update stable"
}

check_rust_tools() {
  cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return 0
  say "missing: rustfmt or clippy (make test checks format and lints)"
  command -v rustup >/dev/null || stop "install rustfmt and clippy for your Rust $rust_wanted+"
  rustup component add rustfmt clippy >&2
}

if [ "$purpose" = kafka ]; then
  need_kafka
  install_packages
  exit
fi
need g++ "RocksDB, librdkafka and jemalloc are compiled here" command -v g++
need pkg-config "librdkafka's build finds the libraries below through it" command -v pkg-config
need libssl-dev "librdkafka speaks TLS and SASL through it" pkg-config --exists openssl
need zlib1g-dev "librdkafka compresses with it" pkg-config --exists zlib
need libclang-dev "the bindings to RocksDB are generated with it" has_libclang
if [ "$purpose" = test ]; then
  need npm "it fetches the real posts that the tests send" command -v npm
  need_kafka
  need openssl "the tests make certificates with it" command -v openssl
  # The tests write and read with clients of Kafka as users have them: tests/clients/install.sh.
  need python3-venv "Kafka clients of PyPI are installed apart" python3 -c 'import ensurepip'
  need curl "the tests run the commands of the quickstart" command -v curl
  need kcat "it is one of the Kafka clients that the tests run" command -v kcat
  need chromium "the tests listen with a real browser" command -v chromium
  need chromium-driver "the tests steer Chromium through it" command -v chromedriver
fi
install_packages
install_rust
check_rust
if [ "$purpose" = test ]; then check_rust_tools; fi
