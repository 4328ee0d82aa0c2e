#!/usr/bin/env bash
# change.sh [-n] [-t TYPE] [-r UUID] [-a WARNING]... NOTEBOOK IMAGE gives a
# notebook another image.
#   -n  only show the plan: nothing is changed
#   -t  kind of image: official, user or custom on CoresHub, none elsewhere
#   -r  id of the request: the same again is the same change, not another one
#   -a  code of a warning of the plan that is accepted
set -euo pipefail
. "$(dirname "$0")/notebookd.sh"

plan=false type="" id="" acknowledge=()
while getopts nt:r:a: option; do
	case $option in
	n) plan=true ;;
	t) type=$OPTARG ;;
	r) id=$OPTARG ;;
	a) acknowledge+=("$OPTARG") ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
notebook=${1:?the name of a notebook, from list.sh} image=${2:?an image}

if [ -z "$id" ]; then
	id=$(uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid)
	$plan || echo "request id: $id"
fi
request=$(jq -n --arg image "$image" --arg type "$type" --arg id "$id" --argjson plan "$plan" \
	'{image: $image, imageType: $type, requestId: $id, validateOnly: $plan, acknowledge: $ARGS.positional, wait: "30s"}' \
	--args -- "${acknowledge[@]}")

# It may be sent as often as one likes: the id makes it the same change.
for ((attempt = 1; attempt <= 10; attempt++)); do
	answer=$(call "$notebook:changeImage" --json "$request" --max-time 40) || true
	code=$(jq '.code // 0' <<<"${answer:-"{\"code\": 14}"}")
	case $code in
	0)
		phase=$(jq -r '.change.phase | ltrimstr("PHASE_")' <<<"$answer")
		case $phase in
		PLANNED)
			jq -r '.change | "\(.fromImage)\n-> \(.toImage)", (.steps[]? | "  \(.)"), (.warnings[]? | "warning \(.code): \(.message)")' <<<"$answer"
			exit
			;;
		SUCCEEDED | UNCHANGED)
			jq -r '"\(.change.name) \(.change.phase[6:])", "\(.notebook.name) has \(.notebook.image.uri)"' <<<"$answer"
			exit
			;;
		FAILED)
			jq -r '"\(.change.name) FAILED: \(.change.failure.message)"' <<<"$answer" >&2
			exit 1
			;;
		*) echo "$phase: still under way" ;; # ask again, at once: the server waits
		esac
		;;
	2 | 4 | 14) # UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE: it may have begun
		tell_error "$answer"
		sleep "$attempt"
		;;
	*)
		tell_error "$answer"
		exit 1
		;;
	esac
done
echo "it has not ended yet; to ask again: -r $id, with the same arguments" >&2
exit 1
