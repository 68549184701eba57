#!/usr/bin/env bash
# Training on two hosts with disks of their own, over TCP, in network namespaces: checkpoints in parts, a resume with the
# disks swapped, a disk lost, a slow link. The losses are those of one host, to the bit. Each line of output is a sentence
# with its verdict; exit code 77 where such hosts cannot be made.
#
#   hosts_test.sh SOURCE BUILD MPIRUN
set -uo pipefail
source=$1 build=$2 mpirun=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=../harness/sentences.sh
. "$source/tests/harness/sentences.sh"
mkdir "$work/mnt"
bash "$source/tests/harness/two_hosts.sh" "$work" "$work" "$work/mnt" true
if [ $? -eq 77 ]; then exit 77; fi

# shellcheck source=../harness/mpi_env.sh
. "$source/tests/harness/mpi_env.sh"
export OMP_NUM_THREADS=1
data=$source/tests/fixtures/golden/llama-gqa-tied
cat >"$work/c.yaml" <<YAML
output: $work/mnt/out
model: {path: $data}
data: {train: [$data/train.jsonl], validation: [$data/train.jsonl], sequence_length: 19, packing: false}
optimizer: {learning_rate: 0.003, warmup_steps: 2, schedule: constant}
batch: {micro: 2, global: 12}
parallel: {pipeline: 2}
train: {steps: 9}
checkpoint: {every: 3, asynchronous: false}
evaluation: {every: 9}
log: {tensorboard: false}
YAML

# Two ranks on each host; a and b are the disks that host-a and host-b have, $work/NAME/{a,b}.
on_hosts() { verb_on_hosts "$1" "$work/c.yaml" "${@:2}"; }  # name words...
verb_on_hosts() {  # name verb words...
  local name=$1
  shift
  mkdir -p "$work/$name/a" "$work/$name/b"
  bash "$source/tests/harness/two_hosts.sh" "${link[@]}" "$work/$name/a" "$work/$name/b" "$work/mnt" \
    "$mpirun" --host host-a:2,host-b:2 -np 4 -x OMP_NUM_THREADS -x PTRAIN_FAULT "$build/ptrain" "$@"
}
link=()
export PTRAIN_FAULT=
swap_disks() { mv "$work/$1/a" "$work/$1/x" && mv "$work/$1/b" "$work/$1/a" && mv "$work/$1/x" "$work/$1/b"; }
killed_at_8() { PTRAIN_FAULT=kill@step:rank3:step8 on_hosts "$@"; [ $? -ne 0 ]; }
losses() {  # disk first_step: "step loss" of its metrics
  sed -nE 's/.*"step":([0-9]+),"loss":([^,]*).*/\1 \2/p' "$work/$1/out/metrics.jsonl" | awk -v first="$2" '$1 >= first'
}
same_losses() {  # disk first_step
  diff <(losses one "$2") <(losses "$1" "$2") && [ "$(losses "$1" "$2" | wc -l)" -eq $((10 - $2)) ]
}
same_model() { diff -r "$work/one/out/model" "$work/$1/out/model"; }
lacks() { ! ls -d "$@" 2>/dev/null; }

# 1. The unbroken run on one host.
one_host() { "$mpirun" -np 4 "$build/ptrain" "$work/c.yaml" --output "$work/one/out" </dev/null; }
expect "One host trains" one_host

# 2. What looks first writes to both disks too.
expect "check saves a step in parts and reads it back" \
  exits 0 "of state are the same; removed" verb_on_hosts looked check "$work/c.yaml" --one-step
expect "What it leaves is tokens on both disks" cmp "$work"/looked/a/out/data/*.h5 "$work"/looked/b/out/data/*.h5
expect "and nothing else" lacks "$work"/looked/*/out/{.check-*,checkpoints,logs}
expect "preprocess makes its file" verb_on_hosts looked preprocess "$work/c.yaml" --out "$work/mnt/tokens/rows.h5"
expect "on both disks" cmp "$work"/looked/{a,b}/tokens/rows.h5

# 3. Two hosts, killed after the checkpoint of step 6.
killed_and_told() { killed_at_8 apart >"$work/log" 2>&1; cat "$work/log"; grep -qF "storage: per_node: host-b does not see" "$work/log" &&
  grep -qF "the loss of a node's disk is not survived" "$work/log"; }
expect "Two hosts find out that their disks are their own" killed_and_told
parts() {
  for disk in a b; do
    local step=$work/apart/$disk/out/checkpoints/step-00000006
    [ -s "$step/MANIFEST.json" ] && [ "$(ls "$step"/*.safetensors | wc -l)" -eq 1 ] &&
      [ "$(ls "$step"/state | wc -l)" -eq 2 ] || return 1
  done
}
expect "Each has its part of step 6, a whole file" parts
expect "Logs and the like lie on the first host alone" lacks "$work"/apart/b/out/{metrics.jsonl,config.yaml,model}
expect "Both have the tokens" cmp "$work"/apart/a/out/data/*.h5 "$work"/apart/b/out/data/*.h5
cp -r "$work/apart" "$work/lost"

# 4. The same command goes on, with the disks swapped.
swap_disks apart
expect "With their disks swapped they go on after step 6" exits 0 "goes on after step 6" on_hosts apart
expect "The losses are those of one host, to the bit" same_losses apart/a 7
expect "The model is assembled on the first host, byte for byte that of one host" same_model apart/a
expect "The second host has no model" lacks "$work/apart/b/out/model"

exports() {
  verb_on_hosts apart export "$work/mnt/out/checkpoints/step-00000009" "$work/mnt/exported" &&
    "$build/ptrain" inspect "$work/apart/a/exported" && [ ! -e "$work/apart/b/exported" ]
}
expect "export assembles a checkpoint of both hosts on the first one" exports

# 5. A disk lost.
rm -rf "$work/lost/b"
expect "Without host-b's disk there is no checkpoint, and what is missing is named" \
  exits 65 "part 1 of 2 is on no disk that this job sees; host-a has part 0 (written by host-a)" on_hosts lost
expect "Two hosts train to step 6 and leave when the copies are there" \
  on_hosts copied --train.steps 6 --checkpoint.replicas 2
rm -rf "$work/copied/b"
expect "A lost disk is survived where the next host has copies" \
  exits 0 "goes on after step 6" on_hosts copied --checkpoint.replicas 2
expect "The losses are those of one host, to the bit" same_losses copied/a 7

# 6. What does not fit is refused; a slow link is only slow.
expect "shared is refused where it is not" \
  exits 2 "is shared, but host-b does not see what host-a writes" on_hosts refused --checkpoint.storage shared
link=(--rate 50mbit)
expect "Over a slow link they train, and save while they do" on_hosts slow --checkpoint.asynchronous true
expect "The losses are those of one host, to the bit" same_losses slow/a 1

exit "$failed"
