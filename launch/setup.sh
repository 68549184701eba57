#!/usr/bin/env bash
# Sets everything up and builds: system packages (Debian), meson, ninja. The program is then build/ptrain.
#
#   bash launch/setup.sh [BUILD_DIR [TARGET...]]        default: build, and in it everything, tests included
#
# MESON_ARGS: meson's further options for a new build directory, as -Dgpu_architectures=80.
#
# May be run again: what is there is left alone, and nothing then needs a network or root. An ordinary user whose
# machine lacks packages is told the command for root. Errors: exit code 4.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}

# package, and how to see that what it brings is there when another way brought it
needed="
g++               command g++
ccache            command ccache
meson             command meson
ninja-build       command ninja
pkg-config        command pkg-config
openmpi-bin       command mpirun
libopenmpi-dev    library ompi-c
libhdf5-dev       library hdf5
libyaml-cpp-dev   library yaml-cpp
libfmt-dev        library fmt
nlohmann-json3-dev library nlohmann_json
libpcre2-dev      library libpcre2-8
libicu-dev        library icu-uc
libgtest-dev      library gtest
libopenblas-dev   library openblas
"

is_there() {  # package kind name
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] && return 0
  case $2 in
    command) command -v "$3" >/dev/null 2>&1 ;;
    library) pkg-config --exists "$3" 2>/dev/null ;;
  esac
}

missing=()
while read -r package kind name; do
  if [ -n "$package" ] && ! is_there "$package" "$kind" "$name"; then missing+=("$package"); fi
done <<<"$needed"

if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: missing: ${missing[*]} (names of Debian's packages); install them with this system's tools" >&2
    exit 4
  fi
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing: ${missing[*]}; as root run" >&2
    echo "  $install" >&2
    exit 4
  fi
  echo "setup: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2 || echo "setup: apt-get update failed; trying with the lists that are there" >&2
  if ! apt-get install -q -y --no-install-recommends "${missing[@]}" >&2; then
    echo "setup: the packages could not be installed: is Debian's mirror reachable from here?" >&2
    exit 4
  fi
fi

# A build for GPUs: cuDNN's attention wants the headers of its frontend, which come as a Python package. Without them
# our own attention kernels serve every case.
frontend=.deps/cudnn_frontend
if command -v nvcc >/dev/null 2>&1 && command -v python3 >/dev/null 2>&1 && [ ! -d "$frontend/include" ]; then
  if python3 -m pip download -q --no-deps --only-binary :all: -d "$frontend" nvidia-cudnn-frontend==1.32.0 >&2 &&
    python3 -m zipfile -e "$frontend"/*.whl "$frontend/wheel" && mv "$frontend/wheel/include" "$frontend/include"; then
    rm -rf "$frontend/wheel" "$frontend"/*.whl
  else
    rm -rf "$frontend"
    echo "setup: cuDNN's frontend (PyPI: nvidia-cudnn-frontend) could not be had: built without cuDNN's attention" >&2
  fi
fi

# Objects compiled in another build directory are found again in ccache.
export CCACHE_NOHASHDIR=1 CCACHE_DEPEND=1
read -ra meson_args <<<"${MESON_ARGS:-}"
if [ ! -f "$build/build.ninja" ]; then meson setup "$build" "${meson_args[@]}" >&2; fi
ninja -C "$build" "${@:2}" >&2
echo "setup: $build/ptrain is ready" >&2
