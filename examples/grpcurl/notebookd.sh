#!/usr/bin/env bash
# What the scripts of this folder share: where notebookd is, and who calls.
#
#   NOTEBOOKD_ADDRESS  default localhost:9090
#   NOTEBOOKD_TOKEN    bearer token, if the server wants one
#   NOTEBOOKD_CA       file with the CA of a server with TLS; without it, no TLS
#   GRPCURL            the program, default grpcurl
set -euo pipefail

address=${NOTEBOOKD_ADDRESS:-localhost:9090}
read -ra grpcurl <<<"${GRPCURL:-grpcurl}"
grpcurl+=(-connect-timeout 5)
if [ -n "${NOTEBOOKD_CA:-}" ]; then grpcurl+=(-cacert "$NOTEBOOKD_CA"); else grpcurl+=(-plaintext); fi
if [ -n "${NOTEBOOKD_TOKEN:-}" ]; then
	# grpcurl puts the token in by itself: everybody on the machine can read its
	# arguments.
	export NOTEBOOKD_TOKEN
	grpcurl+=(-expand-headers -H 'Authorization: Bearer ${NOTEBOOKD_TOKEN}')
fi

# call METHOD REQUEST [FLAG]... makes a call and prints the answer, or fails and
# prints the error, both as JSON. grpcurl has plain words for a server that it
# cannot reach only: they are made an error as well.
call() {
	"${grpcurl[@]}" "${@:3}" -format-error -d "$2" "$address" "notebook.v1.NotebookService/$1" 2>&1 | unreachable
}

unreachable() {
	sed -u '/^Failed to dial/ {s/["\\]//g; s/.*/{"code": 14, "message": "&"}/;}'
}

# tell_error ANSWER prints an error in a few lines. Programs go by the reason.
tell_error() {
	jq -r '"\([.details[]?.reason // empty][0] // "error \(.code)"): \(.message)",
		(.details[]?.violations[]? | "  \(.type): \(.description)"),
		(.details[]?.fieldViolations[]? | "  \(.field): \(.description)")' <<<"$1" >&2
}
