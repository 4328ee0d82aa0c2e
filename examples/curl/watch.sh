#!/usr/bin/env bash
# watch.sh [FILTER] prints the notebooks that match, and then every change. What
# it knows and its token are kept in a file: stop it, stop the server, start both
# again, and it goes on with what it missed.
#
#   NOTEBOOKD_STATE     the file, default notebookd-watch.state
#   NOTEBOOKD_BOOKMARK  how often a quiet server has to say that it is there, in
#                       seconds, default 20
set -euo pipefail
. "$(dirname "$0")/notebookd.sh"

filter=${1:-} state=${NOTEBOOKD_STATE:-notebookd-watch.state} bookmark=${NOTEBOOKD_BOOKMARK:-20}
silence=$((3 * bookmark)) # three that are missed: the connection is dead
declare -A rows=()        # what is known, by name
token=""                  # continues after exactly that

note() { echo "-- $*" >&2; }

# Ctrl-C ends it also while it waits for another program.
trap 'exit 130' INT

if [ -s "$state" ]; then
	{
		IFS= read -r token
		while IFS=$'\t' read -r name row; do rows[$name]=$row; done
	} <"$state"
	note "going on with ${#rows[@]} notebooks from $state"
fi

# store keeps rows and token together: one of them alone would be wrong after a
# crash. (With very many notebooks, a database would do that better.)
store() {
	{
		printf '%s\n' "$token"
		for name in "${!rows[@]}"; do printf '%s\t%s\n' "$name" "${rows[$name]}"; done
	} >"$state.new"
	mv "$state.new" "$state"
}

# One line of tabs for each frame: what, token, name, row; or the code of an
# error, its reason and its text. An error before the
# stream is a Status, one at its end is {"error": Status}.
frames='
def row: "\(.state // "?" | ltrimstr("STATE_")) \(.image.uri // "-")";
if .result then .result | (.resumeToken // "-") as $token |
	if .notebook then [.notebook.type[5:], $token, .notebook.notebook.name, (.notebook.notebook | row)]
	elif .location then ["LOCATION", $token, .location.name, .location.state[6:]]
	elif .bookmark then [.bookmark.kind[5:], $token, "-", "-"]
	elif .reset then ["RESET", $token, "-", .reset.reason]
	else ["OTHER", $token, "-", "-"] end # such as imageChange, or news of a newer server
else (.error // .) | ["ERROR", .code, [.details[]?.reason // empty][0] // "\(.code)", .message] end | @tsv'

# follow reads one stream until it ends, and says why it did. It sets failed to 0
# when there was a frame.
follow() {
	local lines status what next name row
	# Less than a byte a second for that long is silence.
	exec {lines}< <(call notebooks:watch --no-buffer --get --data-urlencode "filter=$filter" \
		--data-urlencode "resumeToken=$token" --data-urlencode "bookmarkInterval=${bookmark}s" \
		--connect-timeout "$silence" --speed-limit 1 --speed-time "$silence" | jq --unbuffered -r "$frames")
	why="" code=0
	while IFS=$'\t' read -r what next name row <&"$lines"; do
		case $what in
		ADDED | MODIFIED)
			rows[$name]=$row
			echo "$what $name $row"
			;;
		DELETED | LEFT_FILTER) # only DELETED says that it is gone from its cloud
			unset "rows[$name]"
			echo "$what $name"
			;;
		LOCATION) echo "$what $name $row" ;;
		RESET) # it cannot go on from there: a full snapshot follows
			rows=()
			note "reset ($row): everything is told anew"
			;;
		SNAPSHOT_END) note "up to date: ${#rows[@]} notebooks" ;;
		CLOSING) note "the server closes" ;; # and its last token is this one
		ERROR) why="$name: $row" code=$next next=- ;;
		esac
		[ "$what" = ERROR ] || failed=0
		# First use what came, then store: after a crash it comes again, and
		# nothing is lost. The rows of a snapshot have no token.
		if [ "$next" != - ]; then
			token=$next
			store
		fi
	done
	exec {lines}<&-
	wait $! && status=0 || status=$?
	case $status in
	7) why="cannot connect to $url" ;;
	28) why="silent for $silence s" ;;
	esac
	why=${why:-the connection is lost}
}

failed=0
while :; do
	follow
	case $code in
	3 | 5 | 7 | 12 | 16) # it would be the same next time
		note "$why"
		# The token was made for another filter, say.
		[[ $why = RESUME_TOKEN_INVALID:* && -n $token ]] || exit 1
		rows=() token=""
		continue
		;;
	esac
	pause=$((failed < 5 ? 1 << failed : 30))
	failed=$((failed + 1))
	note "$why; again in about $pause s"
	sleep "$((pause - 1)).$((RANDOM % 10))" || true # not all at the same time
done
