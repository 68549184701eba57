#!/usr/bin/env bash
# launch/slurm/train.sbatch on a real one-node cluster that the test starts and ends: a run that is given notice saves,
# goes back into the queue, resumes by itself, and ends with the bits of a run that nobody disturbed.
#
#   slurm_test.sh SOURCE PTRAIN        exit code 77: skipped (Slurm is not installed, or not root)
set -eu
source=$1 program=$2
skip() {
  echo "skipped: $1"
  exit 77
}
for tool in slurmctld slurmd sbatch munged; do
  command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || skip "$tool is not installed"
done
[ "$(id -u)" = 0 ] || skip "the daemons need root"
PATH=$PATH:/usr/sbin
work=$(mktemp -d /tmp/slurm-XXXXXX)
pids=()
finish() {
  scancel -u root >/dev/null 2>&1 || true
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT

# 1. A cluster of one node: a key, sockets, spool and two free ports of its own.
mkdir -p "$work"/{spool,state,munge}
chmod 700 "$work/munge"
dd if=/dev/urandom of="$work/munge/key" bs=128 count=1 status=none
chmod 400 "$work/munge/key"
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge.sock" --pid-file="$work/munge/pid" \
  --log-file="$work/munge/log" --seed-file="$work/munge/seed" >/dev/null 2>&1 &
pids+=($!)
read -r port_a port_b < <(python3 -c '
import socket
a, b = socket.socket(), socket.socket()
a.bind(("127.0.0.1", 0)); b.bind(("127.0.0.1", 0))
print(a.getsockname()[1], b.getsockname()[1])')
host=$(hostname -s)
cat >"$work/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPort=$port_a
SlurmdPort=$port_b
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/ctld.pid
SlurmdPidFile=$work/d.pid
SlurmctldLogFile=$work/ctld.log
SlurmdLogFile=$work/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=5
SlurmdParameters=config_overrides
SwitchType=switch/none
JobRequeue=1
MpiDefault=none
KillWait=10
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$work/slurm.conf
for _ in $(seq 50); do [ -S "$work/munge.sock" ] && break || sleep 0.1; done
slurmctld -D -f "$SLURM_CONF" >/dev/null 2>&1 &
pids+=($!)
slurmd -D -f "$SLURM_CONF" >/dev/null 2>&1 &
pids+=($!)
for _ in $(seq 100); do sinfo -h 2>/dev/null | grep -q idle && break || sleep 0.2; done
sinfo -h 2>/dev/null | grep -q idle || { tail -n 4 "$work"/*.log >&2; skip "a cluster cannot be started here"; }

# 2. The demo's model on 4 ranks, once in one go and once with a notice in the middle.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_NUM_THREADS=1
export PTRAIN=$program
bash "$source/launch/demo_data.sh" "$work/data"
cd "$source"
keys=(configs/demo.yaml --data.train "$work/data/train.jsonl" --data.validation "$work/data/validation.jsonl"
  --parallel.data 1 --train.steps 60 --checkpoint.every 1000 --evaluation.every 0 --log.every 1)
failed=0
submit() {  # name, how to start
  PTRAIN_LAUNCH=$2 sbatch --parsable -n 4 --output "$work/$1.log" launch/slurm/train.sbatch "${keys[@]}" \
    --output "$work/run-$1"
}
wait_until() {  # seconds, command…
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.3
  done
}
is_gone() { ! squeue -h -j "$1" 2>/dev/null | grep -q .; }
has_step() { grep -q '"step":5,' "$1/metrics.jsonl" 2>/dev/null; }
losses() { grep -o '"step":[0-9]*,"loss":[^,]*' "$1/metrics.jsonl"; }

job=$(submit whole srun)
wait_until 120 is_gone "$job" || { echo "FAIL  the undisturbed job does not end"; failed=1; }
for how in srun mpirun; do
  job=$(submit "$how" "$how")
  if ! wait_until 120 has_step "$work/run-$how"; then
    echo "FAIL  $how: no step was made"
    failed=1
    continue
  fi
  scancel --batch --signal=USR1 "$job"
  wait_until 180 is_gone "$job" || { echo "FAIL  $how: the job does not end"; failed=1; }
  if grep -q 'ended with 75' "$work/$how.log" && grep -q 'start 2,' "$work/$how.log" &&
    grep -q 'goes on after step' "$work/$how.log"; then
    echo "ok    $how: saved with 75, went back into the queue, resumed by itself"
  else
    echo "FAIL  $how: it was not saved, requeued and resumed"
    failed=1
  fi
  if [ -n "$(losses "$work/run-whole")" ] && cmp -s <(losses "$work/run-whole") <(losses "$work/run-$how"); then
    echo "ok    $how: every loss has the bits of the undisturbed run"
  else
    echo "FAIL  $how: the losses differ"
    failed=1
  fi
done
[ "$failed" = 0 ] || tail -n 20 "$work"/{whole,srun,mpirun}.log
exit "$failed"
