#!/usr/bin/env bash
# Runs Apache Kafka from Maven Central without Docker, for tests and for `make kafka`.
#
# Usage: scripts/kafka.sh fetch        prints the folder of the jars; downloads them if missing
#        scripts/kafka.sh run [PORT]   runs a broker at 127.0.0.1:9092, or that port, until Ctrl-C
#        scripts/kafka.sh pin          downloads the jars of the pom and records their digests
#
# The folder also has java.args, for `java @FOLDER/java.args CLASS …`: the class path, the log
# format, and a class data archive that halves the time of a start.
#
# TIDEWIRE_KAFKA_DIR: the data of `run` (default: .tidewire/kafka), kept until it is removed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../tests/data/kafka" && pwd)
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")
cache=${TIDEWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidewire}
jars=$cache/kafka-$version
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
patience_s=60

say() { printf 'tidewire: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

# download FOLDER: the jars of the pom, each checked by Maven against its repository's checksum.
download() {
  command -v mvn >/dev/null || stop 'Maven is missing; run: scripts/install.sh kafka'
  say "downloading Apache Kafka $version from Maven Central (43 MB, only once)"
  mvn --quiet --batch-mode --strict-checksums -f "$here/pom.xml" \
    "$plugin:copy-dependencies" "-DoutputDirectory=$1" >"$work/maven.log" 2>&1 || {
    cat "$work/maven.log" >&2
    stop "Maven could not download Kafka $version; check the connection to repo.maven.apache.org"
  }
}

# compile FOLDER: adds a jar with a broker whose clock tests can set.
compile() {
  command -v javac >/dev/null || stop 'a Java compiler is missing; run: scripts/install.sh kafka'
  javac -cp "$(printf '%s:' "$1"/*.jar)" -d "$work/classes" "$here/ClockedBroker.java" >&2 &&
    jar --create --file "$1/clocked-broker.jar" -C "$work/classes" . >&2 ||
    stop "tests/data/kafka/ClockedBroker.java does not compile against Kafka $version"
}

# The jars are moved into place only when all of them are checked.
install_jars() {
  cat "$here/jars.sha256" "$here/ClockedBroker.java" >"$work/made-of"
  cmp -s "$work/made-of" "$jars/made-of" && return 0
  download "$work/jars"
  (cd "$work/jars" && sha256sum --check --strict --quiet "$here/jars.sha256") >&2 ||
    stop "the jars of Apache Kafka $version differ from tests/data/kafka/jars.sha256"
  compile "$work/jars"
  mv "$work/made-of" "$work/jars/"
  rm -rf "$jars"
  mv "$work/jars" "$jars"
}

# The Java in use, by path and modification time: an archive works with no other.
java_key() {
  local java
  java=$(command -v java) || stop 'Java is missing; run: scripts/install.sh kafka'
  java=$(readlink -f "$java")
  printf '# %s %s\n' "$java" "$(stat -c %Y "$java")"
}

# java_args FIRST_LINE ARCHIVE_OPTION: the content of java.args.
java_args() {
  local log=-Dorg.slf4j.simpleLogger
  printf '%s\n' "$1" "$2" "-cp \"$jars/*\"" "$log.showDateTime=true" \
    "$log.dateTimeFormat=HH:mm:ss.SSS" "$log.log.org.apache.kafka.common.config=warn"
}

# node FOLDER PORT: the properties of a broker with data in FOLDER.
node() {
  cat "$here/node.properties"
  printf '%s\n' node.id=1 "log.dirs=$1/data" "controller.quorum.voters=1@127.0.0.1:$(($2 + 1))" \
    "listeners=PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$(($2 + 1))"
}

# format FOLDER: formats the data folder, unless it is formatted.
format() {
  java "@$args" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
    kafka.tools.StorageTool format --ignore-formatted \
    --cluster-id tidewire-kafka-cluster --config "$1/server.properties" \
    >"$1/format.log" 2>&1 || { cat "$1/format.log" >&2; stop "could not format $1"; }
}

# started LOG PID: waits until the broker with this log has started.
started() {
  local waited=0
  until grep -q 'Kafka Server started' "$1" 2>/dev/null; do
    kill -0 "$2" 2>/dev/null && [ "$waited" -lt $((patience_s * 10)) ] || return 1
    sleep 0.1
    waited=$((waited + 1))
  done
}

# Starts and ends a broker once to make an archive of the classes it loads. Without an archive (for
# example because the port was taken) brokers start slower, and the next call tries again. The
# checkpoint that formatting writes is kept too, because it is the same for every node.
archive_classes() {
  local key broker archive=$jars/classes.jsa
  key=$(java_key)
  [ "$(head -n 1 "$jars/java.args" 2>/dev/null)" != "$key" ] || return 0
  args=$work/java.args
  java_args '# no archive' -Xshare:auto >"$args"
  node "$work" "$(shuf -i 12000-29999 -n 1)" >"$work/server.properties"
  format "$work"
  setpriv --pdeathsig KILL java "@$args" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    "-XX:ArchiveClassesAtExit=$work/classes.jsa" kafka.Kafka "$work/server.properties" \
    >"$work/log" 2>&1 9>&- &
  broker=$!
  started "$work/log" "$broker" || true
  kill "$broker" 2>/dev/null || true
  wait "$broker" || true
  mv "$work/data/bootstrap.checkpoint" "$jars/"
  if [ -s "$work/classes.jsa" ]; then
    mv -f "$work/classes.jsa" "$archive"
    java_args "$key" "-XX:SharedArchiveFile=$archive" >"$args"
  else
    say "could not archive Kafka's classes, so brokers start slower; the end of the log:"
    tail -n 3 "$work/log" >&2
  fi
  mv "$args" "$jars/java.args"
}

# With a lock, because test processes run in parallel.
fetch() {
  mkdir -p "$cache"
  exec 9>"$cache/kafka.lock"
  flock 9
  rm -rf "$cache"/kafka-work.* # left by calls that were killed
  work=$(mktemp -d "$cache/kafka-work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  install_jars
  archive_classes
  rm -rf "$work"
  trap - EXIT
  exec 9>&-
  args=$jars/java.args
}

pin() {
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  download "$work"
  (cd "$work" && sha256sum -- *.jar) >"$here/jars.sha256"
}

# announce FOLDER PORT: prints the ready line once the broker has started.
announce() {
  until grep -q 'Kafka Server started' "$1/broker.log" 2>/dev/null; do sleep 0.1; done
  printf 'Apache Kafka %s is ready at 127.0.0.1:%s, data in %s; now: %s\n' "$version" "$2" "$1" \
    "tidewire dev --log kafka://127.0.0.1:$2"
}

# serve FOLDER: runs the broker until it ends. On a terminal it gets a foreground process group of
# its own, so that Ctrl-C reaches only the broker and `make` sees its exit code; elsewhere signals
# are forwarded. If this shell is killed, the broker ends too.
serve() {
  local code=0 broker
  local command=(setpriv --pdeathsig TERM java "@$args" -Xmx512m kafka.Kafka
    "$1/server.properties")
  if [ -t 0 ]; then
    set -m
    "${command[@]}" >>"$1/broker.log" 2>&1 || code=$?
  else
    "${command[@]}" >>"$1/broker.log" 2>&1 &
    broker=$!
    trap 'kill -TERM "$broker"' INT TERM
    while kill -0 "$broker" 2>/dev/null; do
      code=0
      wait "$broker" || code=$?
    done
  fi
  return "$code"
}

run() {
  local port=$1 data=${TIDEWIRE_KAFKA_DIR:-.tidewire/kafka} announcer code=0
  for taken in "$port" $((port + 1)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$taken") 2>/dev/null; then
      stop "127.0.0.1:$taken is in use; give another port: scripts/kafka.sh run $((port + 100))"
    fi
  done
  mkdir -p "$data"
  data=$(cd "$data" && pwd)
  exec 8>"$data/lock"
  flock -n 8 || stop "a broker already runs on $data; set TIDEWIRE_KAFKA_DIR to another folder"
  node "$data" "$port" >"$data/server.properties"
  format "$data"
  : >"$data/broker.log"
  announce "$data" "$port" &
  announcer=$!
  serve "$data" || code=$?
  kill "$announcer" 2>/dev/null || true
  # After a clean shutdown by a signal, Java exits with 128 plus the signal's number.
  case $code in
    0 | 130 | 143) ;;
    *) tail -n 20 "$data/broker.log" >&2; stop "the broker ended with code $code; see above" ;;
  esac
}

case ${1:-} in
  fetch) fetch; echo "$jars" ;;
  run) fetch; run "${2:-9092}" ;;
  pin) pin ;;
  *) stop 'usage: scripts/kafka.sh fetch | run [PORT] | pin' ;;
esac
