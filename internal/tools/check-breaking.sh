#!/usr/bin/env bash
# Fails when the contract breaks clients of an earlier one: that of the branch
# main, or, where main has this very contract, the one before its last change.
# BREAKING_AGAINST names another commit.
set -euo pipefail
cd "$(dirname "$0")/../.."
base=${BREAKING_AGAINST:-main}
if ! git rev-parse --verify --quiet "$base^{commit}" >/dev/null; then
	echo "there is no $base to compare the contract with"
	exit 0
fi
if [ -z "${BREAKING_AGAINST:-}" ] && git diff --quiet "$base" -- proto; then
	before=$(git log --format=%H -2 "$base" -- proto | tail -n 1)
	base=${before:-$base}
fi
echo "buf breaking against $(git rev-parse --short "$base")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
git archive "$base" proto buf.yaml | tar -x -C "$tmp"
cp -r third_party "$tmp/" # the imports, which are not committed
go tool -modfile=tools/go.mod buf breaking --against "$tmp"
