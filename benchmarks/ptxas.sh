#!/usr/bin/env bash
# Compiles every hand-written kernel for sm_80 and sm_90 and writes what the assembler says of registers, shared memory and
# spills to benchmarks/ptxas.md, by kernel. Needs nvcc and no GPU.
#
#   bash benchmarks/ptxas.sh [--check] [FILE.cu...]         default: kernels/cuda/*.cu
#
# --check writes nothing. Exit codes: 1 when a kernel spills that benchmarks/gpu/spills_allowed.txt does not name, 3 when a
# file does not compile, 4 without nvcc. ARCHS, in the environment, names other architectures: ARCHS="80 90 100".
set -euo pipefail
cd "$(dirname "$0")/.."
out=benchmarks/ptxas.md
if [ "${1:-}" = --check ]; then out=/dev/stdout && shift; fi
case ${1:-} in -*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;; esac
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) || { echo "ptxas: nvcc is not on this machine" >&2 && exit 4; }
files=("$@")
if [ ${#files[@]} -eq 0 ]; then
  mapfile -t files < <(find kernels/cuda -name '*.cu' | LC_ALL=C sort)
fi
if [ ${#files[@]} -eq 0 ]; then echo "ptxas: there is no kernels/cuda/*.cu" >&2 && exit 3; fi
filter=$(command -v cu++filt || command -v c++filt || echo cat)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for file in "${files[@]}"; do
  for arch in ${ARCHS:-80 90}; do
    echo "ptxas: $file sm_$arch" >&2
    # The cubin alone. fmt 9 takes nvcc for a compiler without constexpr.
    if ! "$nvcc" -std=c++20 -O3 -I. -DFMT_USE_CONSTEXPR=1 --expt-relaxed-constexpr -diag-suppress 177 -arch=sm_"$arch" -cubin \
      -Xptxas -v -o "$work/cubin" "$file" >"$work/said" 2>&1; then
      sed -n 1,20p "$work/said" >&2
      echo "ptxas: $file does not compile for sm_$arch" >&2
      exit 3
    fi
    echo "file $file" >>"$work/all"
    cat "$work/said" >>"$work/all"
  done
done

code=0
"$filter" <"$work/all" | python3 benchmarks/gpu/ptxas_table.py benchmarks/gpu/spills_allowed.txt \
  "$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/nvcc \1/p')" >"$work/table" || code=$?
cat "$work/table" >"$out"
exit $code
