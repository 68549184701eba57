#!/usr/bin/env bash
# The tests under gcc's sanitizers, in a build directory of their own (build-address, build-thread).
#
#   bash launch/sanitize.sh address [RING...]     memory and undefined behaviour, library assertions;
#                                                 default rings: plan data io comm
#   bash launch/sanitize.sh thread [RING...]      data races; default ring: comm
#
# A report makes its test fail. Exit code: that of meson test. Takes two to ten times a plain build's time.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
  address) sanitizers=address,undefined rings=(plan data io comm) ;;
  thread) sanitizers=thread rings=(comm) ;;
  *) sed -n '2,8p' "$0" | cut -c3- >&2; exit 2 ;;
esac
build=build-$1
shift
if [ $# -gt 0 ]; then rings=("$@"); fi

if [ ! -f "$build/build.ninja" ]; then
  # -O0: two sanitizers make an optimising compiler slow. The library's own assertions look at every index of a vector.
  meson setup "$build" -Dcuda=disabled -Db_sanitize="$sanitizers" -Db_lundef=false -Db_ndebug=false \
    --buildtype=plain -Dcpp_args='-O0 -g1 -fno-omit-frame-pointer -D_GLIBCXX_ASSERTIONS'
fi

# shellcheck source=../tests/harness/mpi_env.sh
. tests/harness/mpi_env.sh
# libgomp is not instrumented: what its barriers order looks like a race. One thread, whatever an op asks for.
export OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1 OPENBLAS_NUM_THREADS=1
# Open MPI and HDF5 keep memory until the process ends, and leave it: leaks are counted where neither is in.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/launch/thread_sanitizer.txt
code=0
for ring in "${rings[@]}"; do
  leaks=0
  case $ring in plan) leaks=1 ;; esac
  echo "sanitize: $ring"
  ASAN_OPTIONS=detect_leaks=$leaks:allocator_may_return_null=1 \
    meson test -C "$build" --suite "$ring" --timeout-multiplier 20 --num-processes 2 --print-errorlogs || code=$?
done
exit "$code"
