#!/usr/bin/env bash
# Makes the demo's data set: all sums a + b of numbers below 100 as prompt and completion rows, the same bytes every
# time. Every eleventh sum is held out for validation: what the model answers there it has learned and not seen.
#
#   bash launch/demo_data.sh DIR            writes DIR/train.jsonl and DIR/validation.jsonl
set -euo pipefail
dir=${1:?usage: bash launch/demo_data.sh DIR}
mkdir -p "$dir"
work=$(mktemp -d "$dir/.making-XXXXXX")
trap 'rm -rf "$work"' EXIT

# 11 shares no factor with the digits' base: every pair of last digits is on both sides of the cut.
awk -v train="$work/train.jsonl" -v validation="$work/validation.jsonl" 'BEGIN {
  for (a = 0; a < 100; ++a) {
    for (b = 0; b < 100; ++b) {
      file = (31 * a + 17 * b) % 11 == 0 ? validation : train
      printf "{\"prompt\": \"%d+%d=\", \"completion\": \"%d\"}\n", a, b, a + b > file
    }
  }
}'
for file in train.jsonl validation.jsonl; do
  if ! cmp -s "$work/$file" "$dir/$file"; then mv "$work/$file" "$dir/$file"; fi
done
