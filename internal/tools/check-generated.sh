#!/usr/bin/env bash
# Fails when gen/ is not what `make proto` makes of proto/. It works in a copy,
# so that a stale tree stays as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
./internal/tools/generate.sh "$tmp"
if ! diff -r gen "$tmp/gen"; then
	echo "gen/ is stale: run 'make proto' and commit what it changes" >&2
	exit 1
fi
