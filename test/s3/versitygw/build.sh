#!/bin/sh
# Builds versitygw, an S3 server in Go, and prints the path of the binary, and nothing else, on
# stdout. It is built once, into the cache folder, named by its version.
#
# Exit code 3: go is missing.
set -eu

version=v1.8.0
out=${XDG_CACHE_HOME:-$HOME/.cache}/drover/versitygw-$version

if [ -x "$out" ]; then
  printf '%s\n' "$out"
  exit 0
fi
if ! command -v go >/dev/null 2>&1; then
  echo 'build.sh: go is missing: install Go 1.25 or newer to build versitygw' >&2
  exit 3
fi

mkdir -p "$(dirname -- "$out")"
# Built beside its place and renamed, so that two builds at once never meet and none is ever half there.
temporary=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf -- "$temporary"' EXIT
CGO_ENABLED=0 GOBIN=$temporary GOWORK=off go install -trimpath \
  "github.com/versity/versitygw/cmd/versitygw@$version" >&2
mv -f -- "$temporary/versitygw" "$out"
printf '%s\n' "$out"
