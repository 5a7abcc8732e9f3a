#!/usr/bin/env bash
# Installs the validators of the API documents into the cache folder, unless they are there, and
# prints the folder. They are the npm packages of package-lock.json; their scripts are not run.
#
# The folder's name contains a hash of the lock file, so other versions are another folder. It is
# built in a temporary folder and then moved into place.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${TIDEWIRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidewire}/clients

say() { printf 'tidewire: %s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

for program in npm node; do
  command -v "$program" >/dev/null || stop "$program is missing; run: scripts/install.sh test"
done
key=$(cat "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c 1-12)
folder=$cache/api-validators-$key

mkdir -p "$cache"
exec 9>"$cache/lock.api-validators"
flock 9
if [ ! -e "$folder" ]; then
  say 'installing the validators of the API documents (once)'
  work=$(mktemp -d "$cache/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  cp "$here/package.json" "$here/package-lock.json" "$work"
  # --no-audit and --no-fund: npm requests only the packages from the registry.
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel error >&2 ||
    stop 'npm could not install the validators; check the connection to registry.npmjs.org'
  mv -T "$work" "$folder"
fi
echo "$folder"
