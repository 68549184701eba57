#!/usr/bin/env bash
# Builds the fuzz targets with clang, AddressSanitizer and UndefinedBehaviorSanitizer, and runs them one after the
# other. What crashes one lies in BUILD/NAME/crash-*.
#
#   bash tests/fuzz/run.sh [SECONDS] [NAME...]     default: 60 seconds each, all
#
# CXX: clang 16 or later (default: clang++-16, then clang++). BUILD: build-fuzz.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build-fuzz}
seconds=${1:-60}
[ $# -eq 0 ] || shift
CXX=${CXX:-$(command -v clang++-16 || command -v clang++)}
CC=${CC:-${CXX/clang++/clang}}
export CXX CC
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(safetensors index config tokenizer_json tokenizer_model yaml jsonl gguf manifest token_file chat_template)

if [ ! -f "$build/build.ninja" ]; then
  meson setup "$build" -Dfuzz=true -Dcuda=disabled -Dwerror=false -Db_sanitize=address,undefined -Db_lundef=false -Db_ndebug=false
fi
ninja -C "$build" "${names[@]/#/tests/fuzz/fuzz_}"
failed=()
for name in "${names[@]}"; do
  work=$build/$name program=$build/tests/fuzz/fuzz_$name
  mkdir -p "$work/corpus"
  "$program" --seeds "$work/corpus"
  echo "fuzz: $name, $seconds s"
  # HDF5 keeps what it once had; its leaks are not ours.
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=65536 \
    -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus" >"$work/log" 2>&1 || failed+=("$name")
  grep -E "stat::number_of_executed_units|SUMMARY|^#.*DONE" "$work/log" || tail -n 3 "$work/log"
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: ${failed[*]} failed" >&2; exit 1; }
