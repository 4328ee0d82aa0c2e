#!/usr/bin/env bash
# What the scripts of this folder share: where notebookd is, and who calls.
#
#   NOTEBOOKD_URL    default http://localhost:8080
#   NOTEBOOKD_TOKEN  bearer token, if the server wants one
#   NOTEBOOKD_CA     file with the CA of an https server, if it is a private one
set -euo pipefail

url=${NOTEBOOKD_URL:-http://localhost:8080}

# call PATH [ARGUMENT]... makes a call and prints the answer, also if it is an
# error; it fails then. The token is not among the arguments of curl, which
# everybody on the machine can read.
call() {
	local path=$1
	shift
	curl --config <(settings) --silent --fail-with-body "$@" "$url/v1/$path"
}

settings() {
	[ -z "${NOTEBOOKD_TOKEN:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$NOTEBOOKD_TOKEN"
	[ -z "${NOTEBOOKD_CA:-}" ] || printf 'cacert = "%s"\n' "$NOTEBOOKD_CA"
}

# tell_error ANSWER prints an error in a few lines. Programs go by the reason.
tell_error() {
	if [ -z "$1" ]; then
		echo "no answer from $url" >&2
		return
	fi
	jq -r '"\([.details[]?.reason // empty][0] // "error \(.code)"): \(.message)",
		(.details[]?.violations[]? | "  \(.type): \(.description)"),
		(.details[]?.fieldViolations[]? | "  \(.field): \(.description)")' <<<"$1" >&2
}
