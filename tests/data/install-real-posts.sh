#!/usr/bin/env bash
# Downloads the real posts of the tests into the cache folder, unless they are there, and prints the
# file's path: twitter.json of the npm package simdjson (Apache-2.0), 100 posts as published. Used
# by tests only, never shipped. The package is downloaded, checked and unpacked, but not run.
set -euo pipefail

version=0.9.2
package_sha512=096f7b69c6fcb72e04731246b024eb8318758a2a8b29b72e68802d7b80e33dda
package_sha512+=32b4ada9b357113751e90498c8cea68be5c9f59bf0ea73802a03a36528f3ca28
file_sha256=a08b769f32b95f426cbc3abafcec65c1a19d3eb544d4ddf320eae142c99efc5d

cache=${TIDEWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidewire}/real-posts
posts=$cache/twitter-$version.json

stop() { printf 'tidewire: %s\n' "$*" >&2; exit 1; }

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$posts" ]; then
  command -v npm >/dev/null || stop 'npm is missing; run: scripts/install.sh test'
  work=$(mktemp -d "$cache/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  npm pack --ignore-scripts --loglevel error "simdjson@$version" >/dev/null ||
    stop "npm could not fetch simdjson@$version; check the connection to registry.npmjs.org"
  echo "$package_sha512  simdjson-$version.tgz" | sha512sum --check --status ||
    stop "simdjson-$version.tgz has another checksum than the package of these tests"
  tar -xzf "simdjson-$version.tgz" package/jsonexamples/twitter.json
  echo "$file_sha256  package/jsonexamples/twitter.json" | sha256sum --check --status ||
    stop 'twitter.json has another checksum than the file of these tests'
  mv package/jsonexamples/twitter.json "$posts"
fi
echo "$posts"
