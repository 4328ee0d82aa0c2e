#!/usr/bin/env bash
# list.sh [FILTER] prints all notebooks that match, for example
#   list.sh 'state = RUNNING AND resources.accelerator.count >= 1'
set -euo pipefail
. "$(dirname "$0")/notebookd.sh"

page_token="" count=0
while :; do
	# The token of the next page goes with the same filter.
	request=$(jq -n --arg filter "${1:-}" --arg token "$page_token" '{filter: $filter, pageToken: $token}')
	page=$(call List "$request") || {
		tell_error "$page"
		exit 1
	}
	# A field that is not set is not in the JSON.
	jq -r '.notebooks[]? | "\(.name) \(.state // "?" | ltrimstr("STATE_")) \(.image.uri // "-")"' <<<"$page"
	# Clouds that are down fail nothing: their notebooks are shown as last known.
	[ -n "$page_token" ] || jq -r '.unreachable[]? | "cannot be reached now: \(.)"' <<<"$page" >&2
	count=$((count + $(jq '.notebooks | length' <<<"$page")))
	page_token=$(jq -r '.nextPageToken // ""' <<<"$page")
	[ -n "$page_token" ] || break
done
echo "$count notebooks"
