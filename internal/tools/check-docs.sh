#!/usr/bin/env bash
# Fails when the references in docs/ are not what `make docs` makes of the source.
# It works in a copy, so that a stale one stays as it is.
set -euo pipefail
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go run ./internal/tools/docs . "$tmp"
for made in "$tmp"/*; do
	if ! diff "docs/$(basename "$made")" "$made"; then
		echo "docs/$(basename "$made") is stale: run 'make docs' and commit what it changes" >&2
		exit 1
	fi
done
