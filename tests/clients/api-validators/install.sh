#!/usr/bin/env bash
# Puts the validators of the API documents into the cache folder, if they are missing, and prints the
# folder. They are packages of npm, exactly those of package-lock.json, and no script of theirs runs.
#
# The folder's name follows from the lock file, so other versions are another folder. It is made
# aside and moved into place whole.
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
  # --no-audit and --no-fund: nothing is asked of the registry but the packages.
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --silent >&2 ||
    stop 'npm could not install the validators; is registry.npmjs.org within reach?'
  mv -T "$work" "$folder"
fi
echo "$folder"
