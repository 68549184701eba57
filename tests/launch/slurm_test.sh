#!/usr/bin/env bash
# launch/slurm/train.sbatch on a real one-node cluster that the test starts and ends: a run that is given notice, or put back
# into the queue by hand, saves, starts again, resumes by itself, and ends with the bits of a run that nobody disturbed.
#
#   slurm_test.sh SOURCE BUILD         exit code 77: skipped (Slurm is not installed, or not root)
set -eu
source=$1 program=$2/ptrain
# shellcheck source=../harness/sentences.sh
. "$source/tests/harness/sentences.sh"
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
  --parallel.data 1 --train.steps 300 --checkpoint.every 1000 --evaluation.every 0 --log.every 1)
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
last_step() { grep -o '"step":[0-9]*,"loss"' "$1/metrics.jsonl" | tail -n 1 | tr -dc 0-9; }
losses() { grep -o '"step":[0-9]*,"loss":[^,]*' "$1/metrics.jsonl"; }
has_losses_of_whole() { [ -n "$(losses "$work/run-whole")" ] && diff <(losses "$work/run-whole") <(losses "$1"); }
has_only_whole_steps() { ! ls -A "$1/checkpoints" | grep -v '^step-[0-9]*$'; }
says() { cat "$1.log" && grep -qF -- "$2" "$1.log"; }
went_on_from() {  # log, step: no step that was done when the notice came is done again
  local from
  cat "$1.log"
  from=$(sed -n 's/.*goes on after step \([0-9]*\).*/\1/p' "$1.log" | head -n 1)
  [ "${from:--1}" -ge "$2" ]
}
disturb() {  # name, how to start, command that takes the job's number: sentences about it
  local job done_steps
  job=$(submit "$1" "$2")
  expect "$1: the job trains" wait_until 120 has_step "$work/run-$1"
  done_steps=$(last_step "$work/run-$1")
  "${@:3}" "$job"
  expect "$1: the job ends by itself" wait_until 240 is_gone "$job"
  expect "$1: it was started twice" says "$work/$1" "start 2,"
  expect "$1: it saved what was done and went on from there" went_on_from "$work/$1" "$done_steps"
  expect "$1: every loss has the bits of the undisturbed run" has_losses_of_whole "$work/run-$1"
  expect "$1: so has the model" diff -r "$work/run-whole/model" "$work/run-$1/model"
  expect "$1: nothing half done is left" has_only_whole_steps "$work/run-$1"
}

job=$(submit whole srun)
expect "An undisturbed job ends" wait_until 120 is_gone "$job"
expect "It has trained" says "$work/whole" "train.sbatch: ended with 0"
disturb notice-srun srun scancel --batch --signal=USR1
expect "It left with 75 and the script put it back into the queue" says "$work/notice-srun" "ended with 75"
disturb notice-mpirun mpirun scancel --batch --signal=USR1
expect "It left with 75 and the script put it back into the queue" says "$work/notice-mpirun" "ended with 75"
disturb requeue-srun srun scontrol requeue
exit "$failed"
