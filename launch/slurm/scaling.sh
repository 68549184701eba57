#!/usr/bin/env bash
# The same training on 1, 2, 4, … nodes, a job each: how does it scale on this cluster?
#
#   launch/slurm/scaling.sh MOST_NODES RANKS_A_NODE CONFIG [--key value …]      MOST_NODES: 1 to 512
#
# OPTIONS go to every sbatch by SBATCH_* variables (SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GPUS_PER_NODE, …).
# Each run writes to runs/scaling-N; afterwards `ptrain report runs/scaling-*` compares them.
set -eu
if [ $# -lt 3 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
most=$1 ranks=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
for ((nodes = 1; nodes <= most && nodes <= 512; nodes *= 2)); do
  sbatch --job-name "scaling-$nodes" -N "$nodes" --ntasks-per-node "$ranks" "$here/train.sbatch" "$@" \
    --output "runs/scaling-$nodes"
done
