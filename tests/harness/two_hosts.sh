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

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hosts.sh
. "$here/hosts.sh"
rate=
if [ "${1:-}" = --rate ]; then rate=$2; shift 2; fi
disk_a=$1 disk_b=$2 mount=$3
shift 3
work=$(mktemp -d)
trap 'hosts_down; rm -rf "$work"' EXIT
# One table of processes: the agent on host-a finds what holds host-b.
hosts_up --one-process-table "$work" host-a host-b
hosts_link "$rate"
on_host host-a mount --bind "$disk_a" "$mount"
on_host host-b mount --bind "$disk_b" "$mount"

export HOST_B_PID=${host_pid[host-b]} OMPI_MCA_orte_tmpdir_base=$work
export OMPI_MCA_plm_rsh_agent="$here/two_hosts.sh --enter"
export OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0
code=0
on_host host-a "$@" </dev/null || code=$?
# The last processes of a job on host-b may outlive mpirun: a job that follows at once would meet them.
left_on_host_b() {
  local name pid
  name=$(readlink "/proc/${host_pid[host-b]}/ns/uts")
  for pid in /proc/[0-9]*; do
    [ "${pid#/proc/}" = "${host_pid[host-b]}" ] || [ "$(readlink "$pid/ns/uts")" != "$name" ] || return 0
  done 2>/dev/null
  return 1
}
tries=0
while left_on_host_b && [ "$tries" -lt 200 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
exit "$code"
