# shellcheck shell=bash
# Hosts on one machine, made of Linux namespaces; sourced by tests. Each has a network card (eth0), a name, System V IPC
# and /dev/shm of its own, and sees mounts that others do not; files are shared but for what the caller mounts. Nothing
# of the machine is changed. Needs root, iproute2 and util-linux; where hosts cannot be made, exits with 77 and the reason.
#
#   hosts_up [--one-process-table] DIR NAME [NAME]    DIR: the caller's, kept until hosts_down
#   hosts_link [RATE]                                  10.77.0.1 and 10.77.0.2; RATE as tc takes it: 50mbit
#   on_host NAME COMMAND...                            runs there
#   hosts_down                                         ends them; with process tables of their own all that runs there
declare -A host_pid=()
host_names=()
host_holders=()

hosts_skip() {
  echo "hosts: $*" >&2
  exit 77
}

hosts_up() {
  local flags=(--net --uts --mount --ipc --pid --fork --kill-child=KILL) dir name tries number=0
  if [ "$1" = --one-process-table ]; then
    flags=(--net --uts --mount --ipc)
    shift
  fi
  dir=$1
  shift
  host_names=("$@")
  [ $# -le 2 ] || hosts_skip "two at most"
  [ "$(id -u)" -eq 0 ] || hosts_skip "needs root"
  command -v ip >/dev/null && command -v nsenter >/dev/null || hosts_skip "needs ip (iproute2) and nsenter (util-linux)"
  unshare "${flags[@]}" true 2>/dev/null || hosts_skip "namespaces cannot be made here"
  echo "127.0.0.1 localhost" >"$dir/hosts"
  for name in "$@"; do
    number=$((number + 1))
    echo "10.77.0.$number $name" >>"$dir/hosts"
  done
  for name in "$@"; do
    # What keeps a host: the first of its processes, which takes in those that lost their parent. /proc is still the
    # machine's at first: its own number there is what nsenter wants.
    unshare "${flags[@]}" bash -euc '
      read -r pid _ </proc/self/stat
      mount -t proc proc /proc
      hostname "$2"
      ip link set lo up
      mount -t tmpfs tmpfs /dev/shm
      mount --bind "$1/hosts" /etc/hosts
      echo "$pid" >"$1/$2.part"
      mv "$1/$2.part" "$1/$2.pid"
      [ "$$" = 1 ] || exec sleep infinity
      trap : TERM INT
      while :; do sleep 3600 & wait || true; done' - "$dir" "$name" </dev/null >/dev/null 2>"$dir/$name.error" &
    host_holders+=("$!")
    disown "$!"
    tries=0
    until [ -s "$dir/$name.pid" ]; do
      tries=$((tries + 1))
      [ "$tries" -lt 500 ] || hosts_skip "$name cannot be furnished: $(cat "$dir/$name.error")"
      sleep 0.02
    done
    host_pid[$name]=$(cat "$dir/$name.pid")
  done
}

hosts_link() {
  local rate=${1:-} name number=0 a=${host_pid[${host_names[0]}]} b
  if [ ${#host_names[@]} -eq 2 ]; then
    b=${host_pid[${host_names[1]}]}
    ip link add eth0 netns "$a" type veth peer name eth0 netns "$b" 2>/dev/null || hosts_skip "no veth in this kernel"
  else
    on_host "${host_names[0]}" ip link add eth0 type veth peer name far 2>/dev/null || hosts_skip "no veth in this kernel"
    on_host "${host_names[0]}" ip link set far up
  fi
  for name in "${host_names[@]}"; do
    number=$((number + 1))
    on_host "$name" ip addr add "10.77.0.$number/24" dev eth0
    on_host "$name" ip link set eth0 up
    if [ -n "$rate" ]; then
      on_host "$name" tc qdisc add dev eth0 root tbf rate "$rate" burst 128kb latency 200ms || hosts_skip "no tbf in this kernel"
    fi
  done
}

on_host() {
  local pid=${host_pid[$1]}
  shift
  nsenter -t "$pid" -m -u -i -n -p --wd="$PWD" -- "$@"
}

hosts_down() {
  local pid
  for pid in "${host_pid[@]}" "${host_holders[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  host_pid=() host_holders=() host_names=()
}
