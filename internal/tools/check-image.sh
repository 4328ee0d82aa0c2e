#!/usr/bin/env bash
# Runs what is in the image as the image is run, without an engine: builds the server
# as the Dockerfile does, from what .dockerignore lets through, proves that it is
# static, and runs it as user 65532 in a read-only root that holds nothing else
# but certificates. Needs Linux and the right to make namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

echo "== build"
context=$tmp/context root=$tmp/root
mkdir -p "$context" "$root"/{etc/ssl/certs,etc/notebookd,var/lib/notebookd}
git ls-files -z -- $(sed -n 's/^!//p' .dockerignore) | grep -zvE '(^|/)testdata/|_test\.go$' |
	tar --null -T - -c | tar -x -C "$context"
go -C "$context" run ./internal/tools/release -binaries -out "$tmp/out" -platforms "linux/$(go env GOARCH)" \
	-version v0.0.0-check -commit "$(git rev-parse HEAD)" -date "$(git show --no-patch --format=%cI)"
server=$tmp/out/server
if ldd "$server" >"$tmp/ldd" 2>&1 || ! grep -q 'not a dynamic executable' "$tmp/ldd"; then
	echo "not static:"
	cat "$tmp/ldd"
	exit 1
fi
if command -v file >/dev/null; then file -b "$server"; fi

echo "== run"
cp "$server" "$root/server"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
install -d -m 0700 -o 65532 -g 65532 "$root/var/lib/notebookd"
# A network of its own: the ports are free, and nothing gets out.
unshare --net --mount --pid --fork --kill-child "$PWD/internal/tools/run-root.sh" "$root" "$tmp/out/cloudsim"
