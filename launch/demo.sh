#!/usr/bin/env bash
# The demo: sets up, builds, makes the data, trains a small Llama on 8 ranks (tensor 2 x pipeline 2 x data 2) and shows
# what it has learned. May be run again: what is done is not done twice.
#
#   bash launch/demo.sh
#
# BUILD_DIR (default: build) names the build directory. Errors: the exit code of the part that failed.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD_DIR:-build}
run=runs/demo
data=data/demo
answers=10

# 1. Program and data.
bash launch/setup.sh "$build" ptrain
bash launch/demo_data.sh "$data"

# 2. Training. mpirun: as root, with more ranks than cores, not spinning while it waits, in a container.
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mpirun="mpirun"
if [ "$(id -u)" -eq 0 ]; then mpirun="mpirun --allow-run-as-root"; fi
train="$mpirun -np 8 --oversubscribe --bind-to none $build/ptrain configs/demo.yaml"
echo
echo "\$ $train"
code=0
$train </dev/null || code=$?
if [ "$code" -ne 0 ]; then
  echo "demo: training ended with exit code $code. What is in $run is kept; to start anew, remove $run" >&2
  exit "$code"
fi

# 3. What it has learned. The model kept is the one with the lowest validation loss.
echo
awk 'match($0, /"eval_loss":[^,}]*/) {
       loss = substr($0, RSTART + 12, RLENGTH - 12) + 0
       if (count++ == 0) first = loss
       if (count == 1 || loss < best) best = loss
     }
     END { printf "validation loss: %.4f nats a token, %.4f at the first look\n", best, first }' "$run/metrics.jsonl"

echo
echo "Greedy answers to sums that were held out of training:"
right=0
while IFS=' ' read -r prompt expected; do
  answer=$("$build/ptrain" generate --model "$run/model" --prompt "$prompt" --max-new-tokens 6 --log.level warning </dev/null)
  verdict=wrong
  if [ "$answer" = "$expected" ]; then verdict=right right=$((right + 1)); fi
  printf '  %-7s%-6s right is %-5s %s\n' "$prompt" "$answer" "$expected" "$verdict"
done < <(awk -F'"' -v most="$answers" \
  'NR % 83 == 0 && shown++ < most { print $4, $8 }' "$data/validation.jsonl")
echo "  $right of $answers are right"

cat <<TEXT

The model is a Hugging Face directory: $run/model
The run's figures: $run/metrics.jsonl, and for TensorBoard $run/events.out.tfevents.*

What to try next:
  $build/ptrain generate --model $run/model --prompt '12+34='
  $build/ptrain plan configs/demo.yaml --ranks 8
      what each rank holds, does and sends, before anything is started
  $mpirun -np 4 --oversubscribe --bind-to none $build/ptrain configs/demo.yaml --parallel.data 1 --output runs/demo4
      another grid of ranks, the same numbers in the first steps
  $build/ptrain plan configs/llama7b.yaml --ranks 16
  docs/smollm2.md: fine-tune SmolLM2-135M on real text
TEXT
