#!/usr/bin/env bash
# Builds a release of HEAD twice, in different places and without a common cache,
# and fails when the bytes differ: check-release.sh [PLATFORMS].
set -euo pipefail
cd "$(dirname "$0")/../.."
platforms=${1:-linux/amd64,darwin/arm64}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for place in one two/deeper; do
	git clone --quiet . "$tmp/$place"
	(cd "$tmp/$place" && GOCACHE="$tmp/$place.cache" go run ./internal/tools/release -version v0.0.0-check -platforms "$platforms" -out dist)
done
diff -r "$tmp/one/dist" "$tmp/two/deeper/dist"
cat "$tmp/one/dist/SHA256SUMS"
