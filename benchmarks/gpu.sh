#!/usr/bin/env bash
# Everything that wants a GPU, in one run of at most ten minutes: the GPU tests, the same under compute-sanitizer, several
# ranks on one GPU, and speed beside PyTorch in turns. Writes OUT/gpu.md, a table of what was measured against its goals;
# a part that fails or finds no time is said there, and the next one runs. Works from a built tree and from a bundle made
# with launch/bundle.sh --tests.
#
#   bash benchmarks/gpu.sh [OPTION...] OUT
#     --dry-run        print what would run, with limits in seconds; needs no GPU
#     --parts WORDS    of tests,ranks,sanitizer,speed (default: all of them, in this order)
#     --minutes N      all together (default: 10)
#     --build DIR      where ptrain is (default: build; in a bundle the bundle's own)
#     --python PROGRAM whose PyTorch is compared (default: .venv/bin/python if it is there, else python3)
#     --models WORDS   of 7b,1.1b,135m (default: all)
#
# GPU_TEST_LIMIT_S, in the environment: seconds for each test program (60).
# Exit code: 0 when every test that could run passed; 1 when one failed; 2 bad arguments; 4 no GPU or no program.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dry_run= parts=tests,ranks,sanitizer,speed minutes=10 build=$root/build python= out= models=7b,1.1b,135m

usage() {
  sed -n '2,17s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry_run=yes && shift ;;
    --parts | --minutes | --build | --python | --models)
      [ $# -ge 2 ] || usage
      declare "${1#--}=$2" && shift 2 ;;
    -*) usage ;;
    *)
      [ -z "$out" ] || usage
      out=$1 && shift ;;
  esac
done
[ -n "$out" ] || usage
case $minutes in '' | *[!0-9]*) echo "gpu: --minutes $minutes is not a whole number" >&2 && exit 2 ;; esac
check_words() {  # option value known...
  local option=$1 word words
  IFS=, read -ra words <<<"$2"
  shift 2
  for word in "${words[@]}"; do
    case " $* " in *" $word "*) ;; *) echo "gpu: $option: there is no $word; there are $*" >&2 && exit 2 ;; esac
  done
}
check_words --parts "$parts" tests ranks sanitizer speed
check_words --models "$models" 7b 1.1b 135m

# What runs: a bundle has starters in bin/, a tree its build directory.
if [ -x "$root/bin/ptrain" ]; then
  ptrain=$root/bin/ptrain mpirun=$root/bin/mpirun
  list_tests() { find "$root/libexec/tests" -type f -name 'test_gpu_*' 2>/dev/null | sort; }
  test_command() { command=("$root/bin/gpu-test" "$(basename "$1")"); }
else
  ptrain=$build/ptrain mpirun=$(command -v mpirun || echo mpirun)
  list_tests() { find "$build/tests" -type f -name 'test_gpu_*' -perm -u+x 2>/dev/null | sort; }
  test_command() { command=("$1"); }
fi
if [ -z "$python" ]; then
  python=$(command -v python3 || echo python3)
  if [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; fi
fi
# Where CUDA's libraries came with Python packages, ptrain finds them there, behind what the machine itself names.
add_python_libraries() {
  local found
  found=$("$python" -c 'import glob, site
print(":".join(sorted(sum((glob.glob(base + "/nvidia/*/lib") for base in site.getsitepackages()), []))))' 2>/dev/null) || return 0
  if [ -n "$found" ]; then export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$found"; fi
}

if [ -z "$dry_run" ]; then
  add_python_libraries
  [ -x "$ptrain" ] || { echo "gpu: $ptrain is missing: bash launch/setup.sh $build" >&2 && exit 4; }
  nvidia-smi -L >/dev/null 2>&1 || { echo "gpu: no GPU here (nvidia-smi -L finds none); --dry-run prints what would run" >&2 && exit 4; }
  mkdir -p "$out/logs" || exit 2
  out=$(cd "$out" && pwd)
  : >"$out/steps.jsonl"
fi

for piece in steps tests ranks speed; do
  # shellcheck disable=SC1090
  . "$root/benchmarks/gpu/$piece.sh"
done

begin_all $((minutes * 60))
run_machine
# A part that takes less leaves its time to those behind it.
for part in tests ranks sanitizer speed; do
  case ,$parts, in *,"$part",*) "run_$part" ;; esac
done
end_all

if [ -n "$dry_run" ]; then exit 0; fi
code=0
"$python" "$root/benchmarks/gpu/table.py" "$out" >"$out/gpu.md" || code=$?
case $code in
  0) ;;
  3) any_test_failed=1 ;;
  *) echo "gpu: the table could not be made (by $python); what was measured is in $out/logs and $out/steps.jsonl" >&2 ;;
esac
cat "$out/gpu.md"
exit $any_test_failed
