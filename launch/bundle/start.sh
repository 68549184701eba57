#!/bin/sh
# Starts the program of a bundle that is named like this file, wherever the bundle lies: tells the loader and Open MPI
# where their files are. bin/gpu-test NAME starts libexec/tests/NAME.
here=$(cd "$(dirname "$0")/.." && pwd -P) || exit 4
name=${0##*/}

# The bundle's libraries first; CUDA's where the machine names them, else where toolkits put them.
path=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
for directory in /usr/local/cuda/lib64 /usr/local/nvidia/lib64; do
  if [ -d "$directory" ]; then path=$path:$directory; fi
done
export LD_LIBRARY_PATH="$path"

# Open MPI and PMIx know only the paths of the machine that built them.
export OPAL_PREFIX="$here" OPAL_BINDIR="$here/bin" OPAL_LIBDIR="$here/lib" OPAL_PKGLIBDIR="$here/lib/openmpi"
export OPAL_DATADIR="$here/share" OPAL_PKGDATADIR="$here/share/openmpi" OPAL_SYSCONFDIR="$here/etc"
if [ -d "$here/lib/pmix" ]; then
  export PMIX_PREFIX="$here" PMIX_LIBDIR="$here/lib" PMIX_PKGLIBDIR="$here/lib/pmix"
  export PMIX_DATADIR="$here/share" PMIX_PKGDATADIR="$here/share/pmix" PMIX_SYSCONFDIR="$here/etc"
fi
# Without ssh Open MPI refuses to start even ranks of its own machine, unless told that there is no other.
if ! command -v ssh >/dev/null 2>&1 && ! command -v rsh >/dev/null 2>&1 && ! command -v srun >/dev/null 2>&1; then
  export OMPI_MCA_plm="${OMPI_MCA_plm:-isolated}"
fi

if [ "$name" = gpu-test ]; then
  name=tests/${1:?gpu-test: name a program of libexec/tests}
  shift
fi
if [ ! -x "$here/libexec/$name" ]; then
  echo "$0: $here/libexec/$name is missing: the bundle is not whole" >&2
  exit 4
fi
exec "$here/libexec/$name" "$@"
