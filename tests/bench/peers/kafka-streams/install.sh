#!/usr/bin/env bash
# Installs Kafka Streams and our program on it into the cache folder, unless they are there, and
# prints the class path that runs it: `java -cp "$(install.sh)" CountByKey …`.
#
# Usage: install.sh        installs and prints
#        install.sh pin    downloads the dependencies of the pom and pins their checksums
#
# The folder's name contains a hash of the files it is built from. It is built in a temporary folder
# and then moved into place.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidewire}/peers
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1

say() { printf 'tidewire: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

# download FOLDER: what Kafka Streams needs besides the jars of the broker.
download() {
  command -v mvn >/dev/null || stop 'Maven is missing; run: scripts/install.sh kafka'
  say 'downloading Kafka Streams from Maven Central (75 MB, once)'
  mvn --quiet --batch-mode --strict-checksums -f "$here/pom.xml" "$plugin:copy-dependencies" \
    -DincludeArtifactIds=kafka-streams,rocksdbjni "-DoutputDirectory=$1" >&2 ||
    stop 'Maven could not fetch Kafka Streams; check the connection to repo.maven.apache.org'
}

work=
trap 'if [ -n "$work" ]; then rm -rf "$work"; fi' EXIT

if [ "${1:-}" = pin ]; then
  work=$(mktemp -d)
  download "$work"
  (cd "$work" && sha256sum -- *.jar) >"$here/jars.sha256"
  exit
fi

broker=$("$here/../../../../scripts/kafka.sh" fetch)
key=$(cat "$here"/{pom.xml,jars.sha256,CountByKey.java} | sha256sum | cut -c 1-12)
folder=$cache/kafka-streams-$key
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$folder" ]; then
  work=$(mktemp -d "$cache/work.XXXXXX")
  download "$work"
  (cd "$work" && sha256sum --check --strict --quiet "$here/jars.sha256") >&2 ||
    stop 'the jars of Kafka Streams have other checksums than jars.sha256'
  javac -cp "$work/*:$broker/*" -d "$work" "$here/CountByKey.java" >&2 ||
    stop 'CountByKey.java does not compile; see above'
  mv -T "$work" "$folder"
  work=
fi
printf '%s\n' "$folder:$folder/*:$broker/*"
