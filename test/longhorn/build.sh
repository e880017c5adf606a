#!/bin/sh
# Builds longhorn-tool (see main.go) and prints the path of the binary, and nothing else, on stdout.
#
#   build.sh OUT   builds to OUT, always
#   build.sh       builds to the cache folder, named by what it is built from, unless it is there
#
# Exit code 3: go is missing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if [ $# -gt 0 ]; then
  case $1 in
    /*) out=$1 ;;
    *) out=$(pwd)/$1 ;;
  esac
else
  hash=$(cd "$here" && cat go.mod go.sum main.go | sha256sum | cut -c 1-16)
  out=${XDG_CACHE_HOME:-$HOME/.cache}/drover/longhorn-tool-$hash
  if [ -x "$out" ]; then
    printf '%s\n' "$out"
    exit 0
  fi
fi

if ! command -v go >/dev/null 2>&1; then
  echo 'build.sh: go is missing: install Go 1.24 or newer to build longhorn-tool' >&2
  exit 3
fi

mkdir -p "$(dirname -- "$out")"
# Built beside its place and renamed, so that two builds at once never meet and none is ever half there.
temporary=$out.$$
trap 'rm -f -- "$temporary"' EXIT
(cd "$here" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$temporary" .) >&2
mv -f -- "$temporary" "$out"
printf '%s\n' "$out"
