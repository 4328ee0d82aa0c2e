#!/usr/bin/env bash
# Looks for known vulnerabilities in what the given packages call: vuln.sh [PACKAGE...].
# Where govulncheck cannot reach its database, the snapshot of it that
# tools/release/go.mod pins is taken, and the day of that is told. Exits 3 when there
# are vulnerabilities, and 75 when nothing could be looked for, which is neither
# good nor bad.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -eq 0 ]; then set -- ./...; fi
# The standard library that a release has, whatever is installed.
GOTOOLCHAIN=$(sed -n 's/^toolchain //p' go.mod)
export GOTOOLCHAIN
tool=(go tool -modfile=tools/release/go.mod)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

code=0
"${tool[@]}" govulncheck "$@" 2>"$tmp/said" || code=$?
cat "$tmp/said" >&2
if ! grep -q 'fetching vulnerabilities' "$tmp/said"; then exit "$code"; fi

version=$(go list -modfile=tools/release/go.mod -m -f '{{.Version}}' golang.org/x/vulndb)
day=$(sed -E 's/^v0\.0\.0-([0-9]{4})([0-9]{2})([0-9]{2}).*/\1-\2-\3/' <<<"$version")
if ! go mod download -modfile=tools/release/go.mod golang.org/x/vulndb; then
	echo "vuln: NOT RUN: neither the database nor its snapshot can be reached" >&2
	exit 75
fi
dir=$(go list -modfile=tools/release/go.mod -m -f '{{.Dir}}' golang.org/x/vulndb)
"${tool[@]}" indexdb -vulns "$dir/data/osv" -out "$tmp/db"
echo "vuln: the database cannot be reached; this is what the pinned snapshot of $day knows, and nothing newer:" >&2
code=0
"${tool[@]}" govulncheck -db "file://$tmp/db" "$@" || code=$?
exit "$code"
