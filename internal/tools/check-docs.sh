#!/usr/bin/env bash
# Fails when the references in docs/ that are made of the source are not what `make
# docs` makes of it.
set -euo pipefail
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go run ./internal/tools/docs -o "$tmp"
for name in configuration.md errors.md; do
	if ! diff "docs/$name" "$tmp/$name"; then
		echo "docs/$name is stale: run 'make docs' and commit what it changes" >&2
		exit 1
	fi
done
