# The steps of launch/bundle.sh, one function each. Sourced, not run.

marker=lib/BUNDLE  # what a bundle is known by: the output of ptrain --version

refuse() {  # exit_code message
  echo "bundle: $2" >&2
  exit "$1"
}

# glibc and the dynamic loader belong to the machine, and so do the driver and CUDA's libraries.
is_of_the_machine() {  # file name
  case $1 in
    ld-linux* | libc.so* | libm.so* | libmvec.so* | libpthread.so* | libdl.so* | librt.so* | libresolv.so* | libutil.so* | \
      libanl.so* | libnsl.so* | libnss_* | libcuda.so* | libnvidia-* | libcudart.so* | libcublas*.so* | libcudnn*.so* | \
      libnccl*.so* | libnvrtc*.so* | libnvJitLink.so*) return 0 ;;
  esac
  return 1
}

# A program as meson links it, but HDF5 from its archive: the shared one brings along a client for S3 with 20 libraries
# that nothing here calls. Paths of this machine are left out: bin/ptrain tells the loader. The tests take CUDA's runtime
# as a library, a megabyte less in each. If that fails: the program as it is.
link_program() {  # build target program
  local build=$1 target=$2 program=$3 command word words=() other log=$3.log
  command=$(ninja -C "$build" -t commands "$target" 2>/dev/null | tail -1)
  for word in $command; do
    case $word in
      -Wl,-rpath,* | \'-Wl,-rpath,*) continue ;;
      */libhdf5*.so) other=${word%.so}.a ;;
      */libcudart_static.a)
        other=
        if [ "$target" != ptrain ]; then other=${word%_static.a}.so; fi
        ;;
      *) other= ;;
    esac
    if [ -n "$other" ] && [ -f "$other" ]; then word=$other; fi
    words+=("$word")
  done
  words+=(-lz -lsz -ldl -o "$program")
  if (cd "$build" && "${words[@]}") >"$log" 2>&1 && [ -x "$program" ]; then
    rm -f "$log"
    return
  fi
  echo "bundle: $target is not linked anew ($(tail -1 "$log" | cut -c1-150)) and copied as it is" >&2
  rm -f "$log"
  cp "$build/$target" "$program"
}

# Whether the program wants AVX2 of its processor anyway.
needs_avx2() {  # program
  case $("$1" --version | awk '$1 == "instructions" { print $2 }') in
    native) grep -qw avx2 /proc/cpuinfo ;;
    x86-64-v[34] | haswell | broadwell | skylake* | cascadelake | cooperlake | icelake* | sapphirerapids | znver*) return 0 ;;
    *) return 1 ;;
  esac
}

# OpenBLAS from its archive with the functions that are called alone: no LAPACK, no libgfortran, 10 MB less. And where the
# program wants AVX2, without the kernels of processors that have none, another 19 MB: empty tables stand in the place of
# theirs, as OpenBLAS itself has for the oldest; with one it ends with a message. Without the archive nothing is done.
thin_openblas() {  # build lib program...
  local build=$1 lib=$2 shared archive symbols work=$2/blas
  shift 2
  shared=$(libraries_of "$@" | grep '/libopenblas\.so' | sed -n 1p) || return 0
  archive=$(dirname "$(readlink -f "$shared")")/libopenblas.a
  if [ ! -f "$archive" ]; then archive=$(dirname "$shared")/libopenblas.a; fi
  [ -f "$archive" ] || return 0
  symbols=$(comm -12 <(nm -D --undefined-only "$@" 2>/dev/null | awk 'NF == 2 { print $2 }' | sort -u) \
    <(nm -D --defined-only "$shared" | awk '{ print $3 }' | sort -u))
  mkdir -p "$work"
  printf '.section .note.GNU-stack,"",@progbits\n.bss\n.balign 16\n' >"$work/tables.s"
  if needs_avx2 "$build/ptrain"; then
    { nm "$archive" 2>/dev/null || true; } | awk '$2 ~ /^[DR]$/ && $3 ~ /^gotoblas_[A-Z0-9_]+$/ { print $3 }' | sort -u |
      { grep -vE '_(HASWELL|EXCAVATOR|ZEN|SKYLAKEX|COOPERLAKE|SAPPHIRERAPIDS)$' || true; } |
      awk '{ printf ".globl %s\n.type %s, @object\n.size %s, 16\n%s: .zero 16\n", $1, $1, $1, $1 }' >>"$work/tables.s"
    echo '.zero 65536' >>"$work/tables.s"
  fi
  # shellcheck disable=SC2046
  if c++ -shared -o "$work/library" -Wl,-soname,"$(basename "$shared")" -Wl,--no-undefined \
    $(sed 's/^/-Wl,-u,/' <<<"$symbols") "$work/tables.s" "$archive" -lpthread -lm 2>"$work/log"; then
    mv "$work/library" "$lib/$(basename "$shared")"
  else
    echo "bundle: OpenBLAS is copied as it is ($(tail -1 "$work/log" | cut -c1-150))" >&2
  fi
  rm -rf "$work"
}

# ICU's data is 30 MB of languages; ptrain asks it for normal forms and properties of characters.
thin_icu_data() {  # lib
  local lib=$1 file symbol work=$1/icu
  file=$(find "$lib" -name 'libicudata.so.*' | sed -n 1p)
  [ -n "$file" ] && command -v icupkg >/dev/null || return 0
  symbol=$(nm -D --defined-only "$file" | awk '$3 ~ /^icudt[0-9]+_dat$/ { print $3 }')
  mkdir -p "$work"
  # The data fills the section; its name inside a package ends with the byte order: l for little.
  if objcopy -O binary --only-section=.rodata "$file" "$work/${symbol%_dat}l.dat" &&
    icupkg -l "$work/${symbol%_dat}l.dat" | grep -E '^[^/]*\.(nrm|icu)$' >"$work/list.txt" &&
    icupkg -d "$work" -x "$work/list.txt" "$work/${symbol%_dat}l.dat" && mkdir -p "$work/small" &&
    icupkg -a "$work/list.txt" -s "$work" new "$work/small/${symbol%_dat}l.dat" &&
    printf '.section .rodata\n.balign 16\n.globl %s\n.type %s, @object\n%s:\n.incbin "%s"\n.size %s, .-%s\n%s\n' "$symbol" \
      "$symbol" "$symbol" "$work/small/${symbol%_dat}l.dat" "$symbol" "$symbol" \
      '.section .note.GNU-stack,"",@progbits' >"$work/data.s" &&
    c++ -shared -nostdlib -o "$work/library" -Wl,-soname,"$(basename "$file")" "$work/data.s"; then
    mv "$work/library" "$file"
  fi
  rm -rf "$work"
}

# Paths of the libraries that programs need, in the order of names; a missing one is an error, unless it is CUDA's.
libraries_of() {  # file...
  local line name
  ldd "$@" 2>/dev/null | awk '/=>/ { print $1, ($3 == "not" ? "missing" : $3) }' | sort -u | while read -r name line; do
    if is_of_the_machine "$name"; then continue; fi
    if [ "$line" = missing ] || [ "$line" = not ]; then refuse 4 "$name is not found on this machine"; fi
    echo "$line"
  done
}

copy_libraries() {  # out file...
  local out=$1 path paths
  shift
  paths=$(LD_LIBRARY_PATH=$out/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} libraries_of "$@")
  while read -r path; do
    if [ ! -e "$out/lib/$(basename "$path")" ]; then cp -L "$path" "$out/lib/"; fi
  done <<<"$paths"
}

mpi_path() {  # name as ompi_info knows it
  ompi_info --parsable --path "$1" | cut -d: -f3
}

# Plugins whose libraries are not everywhere (UCX, libfabric, PSM, verbs) stay behind: each would bring megabytes, and
# Open MPI does without a plugin that is not there.
copy_mpi_files() {  # out
  local out=$1 plugin needed pmix
  for plugin in "$(mpi_path pkglibdir)"/mca_*.so; do
    needed=$(readelf -dW "$plugin" | grep NEEDED)
    if grep -qE '\[lib(uc[pts]|fabric|psm|ibverbs|rdmacm|efa|oshmem|mca_common_(ucx|ofi|verbs))' <<<"$needed"; then continue; fi
    cp -L "$plugin" "$out/lib/openmpi/"
  done
  cp -L "$(mpi_path pkgdatadir)"/help-*.txt "$out/share/openmpi/"
  : >"$out/etc/openmpi-mca-params.conf"
  : >"$out/etc/openmpi-default-hostfile"
  # PMIx, which starts the ranks, is a library of its own where Open MPI does not bring it along.
  pmix=$(ldd "$out"/lib/openmpi/mca_pmix_*.so 2>/dev/null | awk '/libpmix\.so/ { print $3 }' | sed -n 1p)
  if [ -n "$pmix" ]; then
    pmix=$(dirname "$(readlink -f "$pmix")")
    find "$pmix/pmix" "$pmix/../lib/pmix" -name '*.so' -exec cp -L {} "$out/lib/pmix/" \; 2>/dev/null || true
    mkdir -p "$out/share/pmix"
    cp -L "$pmix"/../share/pmix/help-*.txt "$out/share/pmix/" 2>/dev/null || true
    : >"$out/etc/pmix-mca-params.conf"
  fi
}

# What is written by hand, never weights or whole vocabularies.
copy_configs() {  # root configs
  local root=$1 configs=$2 file
  mkdir -p "$configs"
  cp "$root"/configs/*.yaml "$configs/"
  for file in "$root"/configs/models/*/{config,generation_config,tokenizer,tokenizer_config}.json; do
    if [ -f "$file" ] && [ "$(stat -Lc %s "$file")" -lt 100000 ]; then
      install -D -m 644 "$file" "$configs/models/$(basename "$(dirname "$file")")/$(basename "$file")"
    fi
  done
}

copy_benchmarks() {  # root out
  local root=$1 out=$2
  mkdir -p "$out/benchmarks"
  cp -r "$root"/benchmarks/gpu.sh "$root"/benchmarks/gpu "$root"/benchmarks/peers "$out/benchmarks/"
  find "$out/benchmarks" -name __pycache__ -prune -exec rm -rf {} +
}
