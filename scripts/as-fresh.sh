#!/usr/bin/env bash
# Runs a command as a machine sees it on which only scripts/install.sh has installed anything.
#
# Usage: scripts/as-fresh.sh prepare FOLDER      makes the empty home and the list of commands
#        scripts/as-fresh.sh run FOLDER COMMAND…  runs the command with them
#
# `make test AS_FRESH=1`, which CI runs, runs every test this way. The build itself is not: it uses
# the target folder and the crates that are there, because compiling takes longer than all tests.
#
# A test that passes only because something is on the machine by chance fails this way:
# * HOME and all caches below it (cargo, npm, pip, Maven, Go, Tidewire's own) are empty folders.
#   Only the files that say which registry to ask are copied. Cargo's has the crates of the lock
#   file for this platform, as after a build, and nothing else.
# * PATH has the commands of Debian's essential packages, of the packages that install.sh names,
#   of what those depend on, and Rust's; no others.
#
# Programs are not isolated otherwise: an absolute path still finds everything.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

stop() { printf 'tidewire: %s\n' "$*" >&2; exit 1; }

# What a machine has before install.sh can run.
callers=(git make)
# Commands of a package that may come from another one, as a JDK may.
declare -A commands_of=([default-jdk-headless]='java javac jar' [npm]='npm npx node')

# The packages that install.sh names, one a line.
declared() {
  sed -n 's/^ *need \([a-z0-9+.-]*\) .*/\1/p' "$here/install.sh" | sort -u
  printf '%s\n' "${callers[@]}"
}

owner() {
  local path
  path=$(readlink -f "$(command -v "$1")") || return 0
  { dpkg-query -S "$path" || dpkg-query -S "${path#/usr}"; } 2>/dev/null | sed 's/[:,].*//' || true
}

# The names of the packages to begin with: those declared, or the owners of their commands.
roots() {
  local package
  while read -r package; do
    if dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii'; then
      printf '%s\n' "$package"
    else
      for name in ${commands_of[$package]:-$package}; do owner "$name"; done
    fi
  done < <(declared)
  dpkg-query -W -f '${Essential} ${Priority} ${Package}\n' |
    awk '$1 == "yes" || $2 == "required" { print $3 }'
}

# The installed packages that those on standard input need, themselves included.
closure() {
  awk -F '\t' '
    FNR == NR {
      have[$1] = 1
      gsub(/\([^)]*\)|\[[^]]*\]|:[a-z0-9]+/, "", $2)
      needs[$1] = $2
      provided = $3
      gsub(/\([^)]*\)/, "", provided)
      split(provided, names, /[, ]+/)
      for (at in names) if (names[at] != "") provider[names[at]] = $1
      next
    }
    { add($1) }
    function add(name, parts, at) {
      if (!(name in have)) name = (name in provider) ? provider[name] : ""
      if (name == "" || name in seen) return
      seen[name] = 1
      print name
      split(needs[name], parts, /[,| ]+/)
      for (at in parts) if (parts[at] != "") add(parts[at])
    }
  ' <(dpkg-query -W -f '${Package}\t${Depends}, ${Pre-Depends}\t${Provides}\n') -
}

# link_commands FOLDER: links the allowed commands there.
link_commands() {
  local path real
  declare -A allowed
  while read -r path; do allowed[$path]=1; done < <(
    # shellcheck disable=SC2046 # names of packages have no spaces
    dpkg-query -L $(roots | closure) | grep -E '/s?bin/|/jvm/.*/bin/'
  )
  for path in /usr/sbin/* /usr/bin/* /sbin/* /bin/*; do
    [ -x "$path" ] || continue
    real=$(readlink -f "$path")
    if [ -n "${allowed[$path]:-}${allowed[$real]:-}${allowed[${real#/usr}]:-}" ]; then
      ln -sfT "$path" "$1/${path##*/}"
    fi
  done
}

# copy_configuration HOME: the files that tell package tools which registry to ask.
copy_configuration() {
  local file
  for file in .cargo/config.toml .npmrc .pip/pip.conf .config/pip/pip.conf .m2/settings.xml \
    .config/go/env; do
    [ -e "$HOME/$file" ] || continue
    mkdir -p "$(dirname "$1/$file")"
    cp "$HOME/$file" "$1/$file"
  done
}

prepare() {
  local folder=$1 host
  if [ -e "$folder" ]; then
    chmod -R u+w "$folder" # Go's module cache is read-only
    rm -rf "$folder"
  fi
  mkdir -p "$folder/user" "$folder/bin"
  copy_configuration "$folder/user"
  link_commands "$folder/bin"
  host=$(rustc -vV | sed -n 's/^host: //p')
  CARGO_HOME=$folder/user/.cargo cargo fetch --quiet --locked --target "$host" \
    --manifest-path "$here/../Cargo.toml" ||
    stop "the crates of Cargo.lock could not be fetched into an empty folder; see above"
}

run() {
  local folder=$1 rust
  shift
  rust=$(dirname "$(command -v cargo)")
  exec env -u XDG_CACHE_HOME -u TIDEWIRE_CACHE -u NODE_PATH -u GOPATH -u GOMODCACHE -u GOCACHE \
    -u PIP_CACHE_DIR -u PIP_FIND_LINKS -u npm_config_cache \
    "RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}" "CARGO_HOME=$folder/user/.cargo" \
    "HOME=$folder/user" "PATH=$folder/bin:$rust" "$@"
}

case ${1:-} in
  prepare) prepare "$(realpath -m "${2:?give a folder}")" ;;
  run) run "$(realpath "${2:?give a folder}")" "${@:3}" ;;
  *) stop 'usage: scripts/as-fresh.sh prepare FOLDER | run FOLDER COMMAND…' ;;
esac
