#!/usr/bin/env bash
# Runs /server of a root directory on simulated clouds, as a container would, and asks it
# for its health: run-root.sh ROOT CLOUDSIM. For check-image.sh, which gives it
# namespaces of its own.
set -euo pipefail
root=$1 cloudsim=$2
mount -t proc proc /proc
ip link set lo up
config=$root/etc/notebookd/notebookd.yaml
"$cloudsim" -write-config "$config" >"$root.clouds" 2>&1 &
for _ in {1..100}; do
	if [ -s "$config" ]; then break; fi
	sleep 0.1
done
cat >>"$config" <<'YAML'
grpc: {address: 127.0.0.1:9090}
http: {address: 127.0.0.1:8080}
store: {data_dir: /var/lib/notebookd}
YAML
chmod 0644 "$config"

mount --bind "$root" "$root"
mount -t tmpfs -o mode=0700,uid=65532,gid=65532 tmpfs "$root/var/lib/notebookd"
mount -o remount,bind,ro "$root"
if touch "$root/x" 2>/dev/null; then
	echo "the root can be written" >&2
	exit 1
fi
inside=(setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid chroot --userspec=65532:65532 --groups= "$root" /server)

env -i PATH="$PATH" "${inside[@]}" --version
env -i PATH="$PATH" "${inside[@]}" -config /etc/notebookd/notebookd.yaml >"$root.log" 2>&1 &
server=$!
for _ in {1..300}; do
	if env -i PATH="$PATH" "${inside[@]}" healthcheck -config /etc/notebookd/notebookd.yaml 2>"$root.health"; then break; fi
	if ! kill -0 "$server" 2>/dev/null; then break; fi
	sleep 0.1
done
if ! env -i PATH="$PATH" "${inside[@]}" healthcheck -config /etc/notebookd/notebookd.yaml; then
	cat "$root.log" >&2
	exit 1
fi
grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|NoNewPrivs)' "/proc/$server/status"
if ! grep -q $'^Uid:\t65532\t65532' "/proc/$server/status" || ! grep -q $'^CapEff:\t0000000000000000$' "/proc/$server/status"; then
	echo "it is not user 65532 without rights" >&2
	exit 1
fi
kill -TERM "$server"
code=0
wait "$server" || code=$?
echo "stopped with $code"
tail -n 1 "$root.log"
exit "$code"
