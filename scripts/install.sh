#!/usr/bin/env bash
# Installs the packages that Tidewire needs and this machine lacks, and Rust if it is missing.
# Each missing package is printed with the reason first. Usage: scripts/install.sh run|test|kafka
set -euo pipefail

purpose=${1:-run}
rust_wanted=1.89
missing=()
# Where rustup puts Rust; a shell that is older than this installation does not have it.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

say() { printf 'tidewire: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

# need PACKAGE WHY TEST…: records PACKAGE as missing if the command TEST fails.
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

# A JDK of 17 or newer, from any package.
has_jdk() {
  command -v java && [ "$(javac -version 2>&1 | sed 's/^javac \([0-9]*\).*/\1/')" -ge 17 ]
}

need_kafka() {
  need default-jdk-headless "Kafka needs Java 17 or newer, and the tests compile a broker" has_jdk
  need maven "downloads Apache Kafka" command -v mvn
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
    stop "could not install the packages; run as root: $by_hand"
}

install_rust() {
  command -v cargo >/dev/null && return 0
  say "missing: Rust $rust_wanted or newer (compiles Tidewire)"
  local url=https://sh.rustup.rs
  local by_hand="install it from https://rustup.rs (curl --proto '=https' -sSf $url | sh)"
  command -v curl >/dev/null || stop "$by_hand, then run make again"
  curl --proto '=https' --max-time 10 -sSfIo /dev/null "$url" ||
    stop "$url does not answer; $by_hand, then run make again"
  say "installing Rust through rustup into ${CARGO_HOME:-$HOME/.cargo}"
  curl --proto '=https' -sSf "$url" | sh -s -- -y --profile minimal --no-modify-path >&2
}

check_rust() {
  local have
  have=$(rustc --version | awk '{ print $2 }') ||
    stop "cargo exists but rustc does not run; try: rustup toolchain install stable"
  [ "$(printf '%s\n%s\n' "$rust_wanted" "$have" | sort -V | head -n 1)" = "$rust_wanted" ] ||
    stop "Rust $have is too old, $rust_wanted is needed; try: rustup update stable"
}

check_rust_tools() {
  cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return 0
  say "missing: rustfmt or clippy (checks format and lints)"
  command -v rustup >/dev/null || stop "install rustfmt and clippy for your Rust $rust_wanted+"
  rustup component add rustfmt clippy >&2
}

if [ "$purpose" = kafka ]; then
  need_kafka
  install_packages
  exit
fi
need g++ "compiles RocksDB, librdkafka and jemalloc" command -v g++
need pkg-config "finds the libraries below for librdkafka" command -v pkg-config
need libssl-dev "TLS and SASL of librdkafka" pkg-config --exists openssl
need zlib1g-dev "compression of librdkafka" pkg-config --exists zlib
need libclang-dev "generates the bindings to RocksDB" has_libclang
if ! command -v cargo >/dev/null; then
  need curl "downloads Rust" command -v curl
  need ca-certificates "checks who it is downloaded from" test -e /etc/ssl/certs/ca-certificates.crt
fi
if [ "$purpose" = test ]; then
  need npm "downloads the posts that the tests send" command -v npm
  need_kafka
  need openssl "makes certificates for the tests" command -v openssl
  # The tests run unmodified Kafka clients; tests/clients/install.sh installs the rest.
  need python3-venv "an environment for the Kafka clients of PyPI" python3 -c 'import ensurepip'
  need curl "runs the commands of the quickstart in the tests" command -v curl
  need kcat "a Kafka client that the tests run" command -v kcat
  need chromium "the browser that the tests run" command -v chromium
  need chromium-driver "controls Chromium in the tests" command -v chromedriver
fi
install_packages
install_rust
check_rust
if [ "$purpose" = test ]; then check_rust_tools; fi
