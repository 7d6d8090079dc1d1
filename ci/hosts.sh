#!/usr/bin/env bash
# A cluster of separate hosts, rehearsed on one machine: scheduler, three workers, an object store and
# the client each have a network of their own, joined by a bridge; no traffic leaves it. While a map is
# written, one worker host dies and the link of another is cut. What is written, to a shared folder and
# to an object store, has to be what an undisturbed run writes, byte by byte: see ci/hosts.py.
#
#   bash ci/hosts.sh [PYTHON]     needs Linux, iproute2, and root or user namespaces
#
# PYTHON has xstefa, s3fs and moto[server].
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${1:-python}"
if [ -z "${XSTEFA_HOSTS:-}" ]; then
    map=()
    [ "$(id -u)" = 0 ] || map=(--user --map-root-user)
    XSTEFA_HOSTS=1 exec unshare "${map[@]}" --net --mount --pid --fork --mount-proc --kill-child \
        bash "$here/hosts.sh" "$python"
fi

mount -t tmpfs tmpfs /run # for the names of networks; seen by nobody else
ip link set lo up
ip link add bridge type bridge
ip address add 10.77.0.1/24 dev bridge
ip link set bridge up
number=1
for host in scheduler one two three store; do
    number=$((number + 1))
    ip netns add "$host"
    ip link add "$host" type veth peer name eth0 netns "$host"
    ip link set "$host" master bridge up
    ip -n "$host" link set lo up
    ip -n "$host" address add "10.77.0.$number/24" dev eth0
    ip -n "$host" link set eth0 up
done
"$python" "$here/hosts.py"
