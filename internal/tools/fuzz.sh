#!/usr/bin/env bash
# Runs every fuzz target for a time: fuzz.sh TIME [PACKAGE...]. What is found is
# kept under the package's testdata/fuzz.
set -euo pipefail
cd "$(dirname "$0")/../.."
time=$1
shift
if [ $# -eq 0 ]; then set -- ./internal/... ./cmd/...; fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for pkg in $(go list "$@"); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "== $pkg $target"
		if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 50x "$pkg" 2>&1 | tee "$out"; then
			# The fuzzer sometimes calls the end of its time a failure. A finding
			# has an input.
			if ! grep -q 'context deadline exceeded' "$out" || grep -q 'Failing input written' "$out"; then exit 1; fi
			echo "the time was up while an input was tried: no finding"
		fi
	done
done
