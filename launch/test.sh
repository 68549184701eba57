#!/usr/bin/env bash
# Set-up, build and all tests, ring by ring, fast rings first. The last line says how many test cases passed, failed
# and were skipped; the exit code is not 0 when one failed.
#
#   bash launch/test.sh [RING...]           default: all rings
#   bash launch/test.sh --full              also what needs a cluster that the tests start themselves: Slurm, and
#                                           replays of SageMaker's jobs (the toolkit comes from PyPI)
#
# BUILD_DIR (default: build) names the build directory.
set -uo pipefail
cd "$(dirname "$0")/.."
build=${BUILD_DIR:-build}

bash launch/setup.sh "$build" || exit $?
# The tests of a real model want its file (94 MB); where it cannot be had, they count as skipped.
timeout 300 bash launch/get_smollm2.sh models || echo "test: without SmolLM2's file its tests are skipped" >&2

# ring, budget in seconds on 2 cores, programs at once (one where a program uses all cores itself)
cores=$(nproc)
rings="
plan 15 $cores
kernels 120 1
emulation 40 $cores
data 60 $cores
io 60 $cores
comm 90 1
mpi 180 1
golden 240 1
equivalence 360 1
resume 120 1
launch 300 $cores
faults 300 1
hosts 120 1
house 60 1
"
full_rings="
cluster 900 1
"
all_rings=$rings$full_rings
if [ "${1:-}" = --full ]; then
  rings=$all_rings
  shift
elif [ $# -gt 0 ]; then
  rings=$all_rings  # to choose from
fi

# shellcheck source=../tests/harness/mpi_env.sh
. tests/harness/mpi_env.sh

logs=$build/test-logs
mkdir -p "$logs"
: >"$logs/failures.txt"
total_passed=0 total_failed=0 total_skipped=0 rings_run=0

# Counts test cases in meson's log, one line of JSON a program: "passed failed skipped", then failed names in a file.
# A program that fails without a failed case, or before its last one (it crashed, or ran out of time), counts as one
# more failure.
count_cases() {  # log ring
  awk -v ring="$2" -v failures="$logs/failures.txt" '
    function occurrences(text, pattern) { return gsub(pattern, "&", text) }
    {
      name = ""; result = ""
      if (match($0, /"name": "[^"]*"/)) name = substr($0, RSTART + 9, RLENGTH - 10)
      if (match($0, /[^\\]"result": "[A-Z]*"/)) result = substr($0, RSTART + 12, RLENGTH - 13)
      is_good = result == "OK" || result == "EXPECTEDFAIL"
      ok = occurrences($0, "\\[       OK \\] [^ ]* \\([0-9]+ ms\\)")
      bad = occurrences($0, "\\[  FAILED  \\] [^\\\\]*\\([0-9]+ ms\\)")
      left = occurrences($0, "\\[  SKIPPED \\] [^ ]* \\([0-9]+ ms\\)")
      if ($0 ~ /Running 0 tests from/) {
        bad = 1
        print ring ": " name ": the program has no test" >> failures
      } else if (ok + bad + left == 0 && is_good) ok = 1
      if (ok + bad + left == 0 && result == "SKIP") left = 1
      is_whole = ok + bad + left == 0 || $0 ~ /tests? from [0-9]+ test suites? ran\./
      if (!is_good && result != "SKIP" && (bad == 0 || !is_whole)) {
        bad += 1
        print ring ": " name ": the program ended with " result (is_whole ? "" : " before its last case") >> failures
      }
      rest = $0
      while (match(rest, /\[  FAILED  \] [^\\]*\([0-9]+ ms\)/)) {
        text = substr(rest, RSTART + 13, RLENGTH - 13)
        gsub(/\\n/, " ", text)
        print ring ": " name ": " text >> failures
        rest = substr(rest, RSTART + RLENGTH)
      }
      passed += ok; failed += bad; skipped += left
    }
    END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

run_ring() {  # ring budget programs_at_once
  local ring=$1 budget=$2 at_once=$3 start=$SECONDS log=$logs/$1.json code=0 passed failed skipped spent note
  if ! grep -q ":$ring / \|^$ring / \|+$ring\b" <<<"$all_tests"; then
    printf '%-12s no tests\n' "$ring"
    return
  fi
  rm -f "$build/meson-logs/$ring".*
  meson test -C "$build" --no-rebuild --suite "$ring" --num-processes "$at_once" --timeout-multiplier 5 \
    --logbase "$ring" --print-errorlogs >"$logs/$ring.txt" 2>&1 || code=$?
  spent=$((SECONDS - start))
  if [ ! -s "$build/meson-logs/$ring.json" ]; then
    cat "$logs/$ring.txt"
    echo "$ring: the tests could not be started" >>"$logs/failures.txt"
    total_failed=$((total_failed + 1))
    return
  fi
  cp "$build/meson-logs/$ring.json" "$log"
  read -r passed failed skipped < <(count_cases "$log" "$ring")
  if [ "$code" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1
    echo "$ring: meson test ended with code $code" >>"$logs/failures.txt"
  fi
  if [ "$failed" -gt 0 ]; then cat "$logs/$ring.txt"; fi
  note=""
  if [ "$spent" -gt "$budget" ]; then note="  over its budget"; fi
  printf '%-12s %5d passed %3d failed %3d skipped %5d s of %d s%s\n' \
    "$ring" "$passed" "$failed" "$skipped" "$spent" "$budget" "$note"
  total_passed=$((total_passed + passed))
  total_failed=$((total_failed + failed))
  total_skipped=$((total_skipped + skipped))
}

all_tests=$(meson test -C "$build" --no-rebuild --list 2>/dev/null)
wanted=" $* "
while read -r ring budget at_once; do
  if [ -n "$ring" ] && { [ $# -eq 0 ] || [[ $wanted == *" $ring "* ]]; }; then
    run_ring "$ring" "$budget" "$at_once" </dev/null  # mpirun reads what it finds there: the rest of the rings
    rings_run=$((rings_run + 1))
  fi
done <<<"$rings"
if [ $# -eq 0 ] && [ "$rings_run" -ne "$(grep -c . <<<"$rings")" ]; then
  echo "test: only $rings_run of $(grep -c . <<<"$rings") rings were run" >>"$logs/failures.txt"
  total_failed=$((total_failed + 1))
fi

# A test outside of these rings would never run: that is a failure too.
while read -r suite; do
  if [ -n "$suite" ] && ! grep -q "^$suite " <<<"$all_rings"; then
    echo "$suite: a ring that launch/test.sh does not know" >>"$logs/failures.txt"
    total_failed=$((total_failed + 1))
  fi
done < <(sed -n 's/^ptrain:\([^ ]*\) \/ .*/\1/p' <<<"$all_tests" | tr '+' '\n' | sort -u)

if [ -s "$logs/failures.txt" ]; then
  echo
  echo "Failed (output above and in $logs):"
  sed 's/^/  /' "$logs/failures.txt"
fi
echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[ "$total_failed" -eq 0 ]
