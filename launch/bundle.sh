#!/usr/bin/env bash
# Makes a relocatable directory of a build: the program, its libraries, mpirun with its plugins, the configurations. It
# runs, wherever it is put, on a machine of the same kind of processor with this glibc or a newer one; of CUDA only the
# driver and NVIDIA's libraries (cudart, cuBLASLt, cuDNN, NCCL) are expected there. Not an installer, not a container.
#
#   bash launch/bundle.sh [--tests] DIR [BUILD]          BUILD: a build directory (default: build)
#
# DIR must not exist, or be empty, or be a bundle, which is replaced. --tests: the GPU tests and benchmarks/ as well, for
# benchmarks/gpu.sh.
# At most 60 MiB, with the tests 120: above that it fails and names the biggest files. Exit codes: 2 bad arguments, 3 no build there,
# 4 a library or a tool is missing, or too big.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=bundle/parts.sh
. "$root/launch/bundle/parts.sh"

with_tests=
if [ "${1:-}" = --tests ]; then with_tests=yes && shift; fi
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${1#-}" != "$1" ]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
build=${2:-$root/build}
most_mib=${PTRAIN_BUNDLE_MIB:-$([ -n "$with_tests" ] && echo 120 || echo 60)}
[ -x "$build/ptrain" ] || refuse 3 "$build/ptrain is missing: bash launch/setup.sh $build ptrain"
for tool in ldd nm readelf strip objcopy mpirun ompi_info; do
  command -v "$tool" >/dev/null || refuse 4 "$tool is missing: bash launch/setup.sh"
done
case ${most_mib:-x} in *[!0-9]*) refuse 2 "PTRAIN_BUNDLE_MIB is $most_mib, not a number of MiB" ;; esac
if [ -e "$1" ] && [ ! -f "$1/$marker" ] && [ -n "$(ls -A "$1" 2>/dev/null || echo file)" ]; then
  refuse 2 "$1 is there and is no bundle: name a new directory"
fi

# Everything is made beside the target and moved there when it is whole.
mkdir -p "$(dirname "$1")"
target=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
out=$target.part-$$
build=$(cd "$build" && pwd)
trap 'rm -rf "$out"' EXIT
mkdir -p "$out"/{bin,libexec,lib/openmpi,lib/pmix,share/openmpi,etc}

# 1. Programs, linked anew where archives make them smaller, and the launchers of Open MPI.
link_program "$build" ptrain "$out/libexec/ptrain"
cp -L "$(command -v mpirun)" "$out/libexec/mpirun"
cp -L "$(command -v orted)" "$out/libexec/orted"
programs=("$out/libexec/ptrain")
if [ -n "$with_tests" ]; then
  mkdir -p "$out/libexec/tests"
  while read -r test; do
    link_program "$build" "${test#"$build"/}" "$out/libexec/tests/$(basename "$test")"
    programs+=("$out/libexec/tests/$(basename "$test")")
  done < <(find "$build/tests" -type f -name 'test_gpu_*' -perm -u+x | sort)
fi

# 2. Open MPI: its plugins, but for those that need a network's own library, and its texts. Device tensors travel by NCCL;
#    what MPI carries goes over shared memory and TCP.
copy_mpi_files "$out"

# 3. Libraries, the smaller way first: one that is already in lib/ is not copied.
thin_openblas "$build" "$out/lib" "${programs[@]}"
copy_libraries "$out" "${programs[@]}" "$out"/libexec/{mpirun,orted} "$out"/lib/openmpi/*.so "$out"/lib/pmix/*.so
thin_icu_data "$out/lib"
find "$out/lib" "$out/libexec" -type f -exec strip --strip-unneeded {} + 2>/dev/null || true

# 4. Starters, configurations, texts.
for name in ptrain mpirun orted; do install -m 755 "$root/launch/bundle/start.sh" "$out/bin/$name"; done
copy_configs "$root" "$out/configs"
if [ -n "$with_tests" ]; then
  install -m 755 "$root/launch/bundle/start.sh" "$out/bin/gpu-test"
  copy_benchmarks "$root" "$out"
fi
cp "$root/launch/bundle/README.txt" "$out/README.txt"
"$out/bin/ptrain" --version >"$out/$marker" || refuse 4 "the program in the bundle does not start: see above"

# 5. Is it small enough?
bytes=$(find "$out" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
if [ "$bytes" -gt $((most_mib << 20)) ]; then
  echo "bundle: $((bytes >> 20)) MiB, more than $most_mib MiB. The biggest files:" >&2
  find "$out" -type f -printf '%s %P\n' | sort -rn | awk 'NR <= 8 { printf "  %6.1f MiB  %s\n", $1 / 1048576, $2 }' >&2
  exit 4
fi
if grep -q '^instructions native' "$out/$marker"; then
  echo "bundle: built for this very processor; for another one: meson configure $build -Dmarch=x86-64-v3" >&2
fi
rm -rf "$target"
mv "$out" "$target"
echo "bundle: $target: $(awk -v bytes="$bytes" 'BEGIN { printf "%.1f", bytes / 1048576 }') MiB" >&2
