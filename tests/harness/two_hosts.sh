#!/usr/bin/env bash
# Two hosts on one machine, for mpirun: host-a and host-b have a network card, a name, shared memory and a disk of their
# own, everything else is shared. Runs COMMAND on host-a and returns its exit code; 77 where namespaces cannot be made.
#
#   two_hosts.sh [--rate 20mbit] DISK_A DISK_B MOUNT COMMAND...
#
# MOUNT, an existing directory, is DISK_A on host-a and DISK_B on host-b. mpirun --host host-a:2,host-b:2 reaches
# host-b without ssh: its agent enters the namespaces. Needs root and iproute2.
set -euo pipefail

if [ "${1:-}" = --enter ]; then  # the agent: two_hosts.sh --enter host-b WORDS... ; HOST_B_PID is what holds host-b
  shift 2
  exec nsenter -t "$HOST_B_PID" -m -u -i -n --wd="$PWD" -- sh -c "$*"
fi

rate=
if [ "${1:-}" = --rate ]; then rate=$2; shift 2; fi
disk_a=$1 disk_b=$2 mount=$3
shift 3
skip() { echo "two_hosts: $*" >&2; exit 77; }
[ "$(id -u)" -eq 0 ] || skip "needs root"
command -v ip >/dev/null && command -v nsenter >/dev/null || skip "needs ip (iproute2) and nsenter (util-linux)"
unshare --net --uts --mount --ipc true 2>/dev/null || skip "namespaces cannot be made here"

work=$(mktemp -d)
holders=()
finish() {
  kill -9 "${holders[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
printf '127.0.0.1 localhost\n10.77.0.1 host-a\n10.77.0.2 host-b\n' >"$work/hosts"

hold() {  # name disk: a process that keeps the host's namespaces
  unshare --net --uts --mount --ipc sleep infinity </dev/null >/dev/null 2>&1 &
  local pid=$! tries=0
  holders+=("$pid")
  disown "$pid"  # ended below, without a word
  until [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ] &&
    [ "$(cat "/proc/$pid/comm")" = sleep ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || skip "namespaces of $1 are not there"
    sleep 0.02
  done
  nsenter -t "$pid" -m -u -i -n -- bash -euc '
    hostname "$1"; ip link set lo up
    mount -t tmpfs tmpfs /dev/shm; mount --bind "$2" /etc/hosts; mount --bind "$3" "$4"
  ' - "$1" "$work/hosts" "$2" "$mount" || skip "$1 cannot be furnished"
}
hold host-a "$disk_a"
hold host-b "$disk_b"
ip link add eth0 netns "${holders[0]}" type veth peer name eth0 netns "${holders[1]}" 2>/dev/null ||
  skip "no veth in this kernel"
for i in 0 1; do
  nsenter -t "${holders[$i]}" -n -- ip addr add "10.77.0.$((i + 1))/24" dev eth0
  nsenter -t "${holders[$i]}" -n -- ip link set eth0 up
  if [ -n "$rate" ]; then
    nsenter -t "${holders[$i]}" -n -- tc qdisc add dev eth0 root tbf rate "$rate" burst 128kb latency 200ms ||
      skip "no tbf in this kernel"
  fi
done

export HOST_B_PID=${holders[1]} OMPI_MCA_orte_tmpdir_base=$work
export OMPI_MCA_plm_rsh_agent="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/two_hosts.sh --enter"
export OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0
code=0
nsenter -t "${holders[0]}" -m -u -i -n --wd="$PWD" -- "$@" </dev/null || code=$?
exit "$code"
