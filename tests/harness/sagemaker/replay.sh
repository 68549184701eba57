#!/usr/bin/env bash
# Replays a training job of SageMaker on hosts made of namespaces, algo-1 and algo-2: each has a root file system of its
# own over this machine's, /opt/ml as the service lays it out, and runs what the service would start there.
#
#   replay.sh --way v2|v3|command|image --out DIR [OPTIONS]
#     v2        the toolkit's `train` (SDK v2 with distribution={"mpi": ...}), entry train.sh
#     v3        SDK v3's MPI driver, ModelTrainer(distributed=MPI(...)), entry v3_entry.py
#     command   SDK v3, SourceCode(command=...)
#     image     `train` of an image of one's own
#   --hosts 1|2 (1)  --ranks N (2, of a host)  --code DIR (source directory)  --venv DIR (see toolkit.sh)
#   --layer DIR            of an image (see image.sh); --base DIR: a root file system instead of the machine's
#   --hyperparameters JSON --channel NAME=DIR  --mpi-options JSON (a list)  --command TEXT  --env NAME=VALUE
#   --checkpoints DIR      what S3 gives back to /opt/ml/checkpoints of every host
#   --before "HOST TEXT"   runs in that host before its container starts
#   --term-when TEXT       SIGTERM to all containers once algo-1's log has TEXT, as when a job is stopped
# DIR: algo-N.log, algo-N/ml (its /opt/ml), algo-N.code (exit code). Exit code: that of algo-1; 77 where hosts cannot
# be made. The toolkit's own pauses are cut to a second. Needs root.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=../hosts.sh
. "$here/../hosts.sh"
way= out= hosts=1 ranks=2 code=/nonexistent venv=/nonexistent layer= base=/ words={} options=[] command= checkpoints= before= term= limit=120
channels=() variables=()
while [ $# -gt 0 ]; do
  case $1 in
    --way) way=$2 ;;
    --out) out=$2 ;;
    --hosts) hosts=$2 ;;
    --ranks) ranks=$2 ;;
    --code) code=$2 ;;
    --venv) venv=$2 ;;
    --layer) layer=$2 ;;
    --base) base=$2 ;;
    --hyperparameters) words=$2 ;;
    --channel) channels+=("$2") ;;
    --mpi-options) options=$2 ;;
    --command) command=$2 ;;
    --env) variables+=("$2") ;;
    --checkpoints) checkpoints=$2 ;;
    --before) before=$2 ;;
    --term-when) term=$2 ;;
    *) echo "replay: unknown option $1" >&2 && exit 2 ;;
  esac
  shift 2
done
[ -x /usr/sbin/sshd ] && command -v ssh >/dev/null || hosts_skip "needs sshd and ssh (openssh-server)"
work=$(mktemp -d)
followers=()
end() {
  [ ${#followers[@]} -eq 0 ] || kill "${followers[@]}" 2>/dev/null || true
  hosts_down
  rm -rf "$work" 2>/dev/null || true
}
trap end EXIT
trap 'exit 143' TERM INT
names=(algo-1)
[ "$hosts" = 1 ] || names+=(algo-2)

# 1. What is the same on all hosts, as from an image: AWS's have a key for ssh, as ours, and Python.
rm -rf "$out"
mkdir -p "$out" "$work/site"
out=$(cd "$out" && pwd -P)
if [ "$way" = image ]; then
  start=(train)
  path=$(cat "$layer/path")
else
  layer=$work/layer
  mkdir -p "$layer/root/etc/ssh"
  bash "$here/../../../launch/sagemaker/image/ssh_setup.sh" "$layer/root"
  ssh-keygen -A -f "$layer/root" >/dev/null
  printf 'PermitRootLogin prohibit-password\nUsePAM yes\nMaxStartups 100\n' >"$layer/root/etc/ssh/sshd_config"
  start=(train)
  path=$venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  if [ "$way" != v2 ]; then
    drivers=/opt/ml/input/data/sm_drivers
    start=(/bin/bash -c "chmod +x $drivers/sm_train.sh && $drivers/sm_train.sh")
  fi
  # Python reads it first.
  printf 'import os, time\nos.environ.pop("PYTHONPATH", None)\n_sleep = time.sleep\ntime.sleep = lambda s: _sleep(min(s, 1))\n' \
    >"$work/site/sitecustomize.py"
  variables+=("PYTHONPATH=/opt/site")
fi

# 2. The hosts.
hosts_up "$work" "${names[@]}"
hosts_link
for host in "${names[@]}"; do
  ml=$out/$host/ml
  mkdir -p "$ml"
  python3 "$here/layout.py" "$ml" "$way" "$host" "$(IFS=, && echo "${names[*]}")" "$ranks" "$code" "$words" \
    "$(IFS=, && echo "${channels[*]%%=*}")" "$options" "$command" "$venv"
  [ -z "$checkpoints" ] || cp -r "$checkpoints/." "$ml/checkpoints/"
  mkdir -p "$work/$host"
  on_host "$host" bash -euc '
    place=$1 base=$2 layer=$3 ml=$4 site=$5 venv=$6
    shift 6
    mount -t tmpfs tmpfs "$place"
    mkdir "$place"/{upper,work,root}
    root=$place/root
    cp -a "$layer/root/." "$place/upper/"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$place/upper,workdir=$place/work" "$root"
    mkdir -p "$root"/{proc,dev,sys,tmp,run,opt/ml,opt/site}
    for name in proc dev sys; do mount --rbind "/$name" "$root/$name"; done
    mount -t tmpfs tmpfs "$root/tmp"
    rm -f "$root/etc/hosts" "$root/etc/environment"
    cp /etc/hosts "$root/etc/hosts"
    touch "$root/etc/environment"
    mount --bind "$ml" "$root/opt/ml"
    mount --bind "$site" "$root/opt/site"
    if [ -d "$venv" ]; then
      mkdir -p "$root/$venv"
      mount --bind "$venv" "$root/$venv"
    fi
    for channel in "$@"; do
      mkdir -p "$root/opt/ml/input/data/${channel%%=*}"
      mount --bind -o ro "${channel#*=}" "$root/opt/ml/input/data/${channel%%=*}"
    done' - "$work/$host" "$base" "$layer" "$ml" "$work/site" "$venv" "${channels[@]}" 2>"$work/error" ||
    hosts_skip "$host cannot be furnished: $(cat "$work/error")"
done
inside() {  # host command...
  local host=$1
  shift
  on_host "$host" chroot "$work/$host/root" env -i HOME=/root PATH="$path" "$@"
}
if [ -n "$before" ]; then inside "${before%% *}" sh -euc "${before#* }"; fi

# 3. The containers.
pids=()
for host in "${names[@]}"; do
  inside "$host" LANG=C.UTF-8 TRAINING_JOB_NAME=replay PYTHONUNBUFFERED=1 "${variables[@]}" \
    timeout --foreground -k 5 "$limit" bash -c 'echo "$$" >/tmp/container.pid; exec "$@"' - "${start[@]}" \
    </dev/null >"$out/$host.log" 2>&1 &
  pids+=("$!")
done
if [ -n "$term" ]; then
  (
    until grep -qF -- "$term" "$out/algo-1.log"; do sleep 0.2; done
    for host in "${names[@]}"; do inside "$host" sh -c 'kill -TERM "$(cat /tmp/container.pid)"'; done
  ) &
  followers+=("$!")
fi
result=0
wait "${pids[0]}" || result=$?
echo "$result" >"$out/algo-1.code"
if [ "$hosts" = 2 ]; then  # the service ends the others, if they do not
  for _ in $(seq 100); do kill -0 "${pids[1]}" 2>/dev/null || break && sleep 0.2; done
  if kill -0 "${pids[1]}" 2>/dev/null; then
    echo "ended by the service" >"$out/algo-2.code"
    kill "${pids[1]}"
  else
    other=0
    wait "${pids[1]}" || other=$?
    echo "$other" >"$out/algo-2.code"
  fi
fi
exit "$result"
