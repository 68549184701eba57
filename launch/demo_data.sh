#!/usr/bin/env bash
# Makes the demo's data set: additions as prompt and completion rows, the same bytes every time. Every tenth sum is held
# out for validation, so what the model answers there it has learned and not seen.
# usage: bash launch/demo_data.sh DIR
set -euo pipefail
dir=${1:?usage: demo_data.sh DIR}
mkdir -p "$dir"
[ -s "$dir/train.jsonl" ] && [ -s "$dir/validation.jsonl" ] && exit 0
awk -v train="$dir/train.jsonl.tmp" -v validation="$dir/validation.jsonl.tmp" 'BEGIN {
  for (a = 0; a < 50; ++a) {
    for (b = 0; b < 50; ++b) {
      file = (a * 7 + b * 3) % 10 == 0 ? validation : train
      printf "{\"prompt\": \"%d+%d=\", \"completion\": \"%d\"}\n", a, b, a + b > file
    }
  }
}'
mv "$dir/train.jsonl.tmp" "$dir/train.jsonl"
mv "$dir/validation.jsonl.tmp" "$dir/validation.jsonl"
