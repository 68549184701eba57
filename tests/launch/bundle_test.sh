#!/usr/bin/env bash
# launch/bundle.sh: what it makes runs from another place in an empty environment and gives what the build gives, and it
# refuses what would not work. Each line of output is a sentence with its verdict.
#
#   bundle_test.sh SOURCE BUILD MPIRUN
set -uo pipefail
source=$1 build=$2 mpirun=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=../harness/sentences.sh
. "$source/tests/harness/sentences.sh"

bundle() { (cd "$work" && "${before[@]}" bash "$source/launch/bundle.sh" "$@"); }
before=(env)
# Nothing of this machine's paths but system tools, and of the user's nothing.
clean() { env -i PATH=/usr/bin:/bin HOME="$work" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
  OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1 OMP_NUM_THREADS=1 "$@"; }
same_output() { diff <("${@:2}") "$1"; }
same_files() { [ -s "$1" ] && diff "$1" "$2"; }

# 1. Made, and moved.
expect "A build becomes a bundle" bundle first "$build"
mv "$work/first" "$work/somewhere else" 2>/dev/null
moved="$work/somewhere else"
small_enough() { [ "$(du -sm --apparent-size "$moved" | cut -f1)" -le 60 ]; }
expect "It takes at most 60 MiB" small_enough
"$build/ptrain" --version >"$work/version"
expect "Moved, its program is that of the build" same_output "$work/version" clean "$moved/bin/ptrain" --version

# 2. Its libraries are its own, but for glibc, the driver's and CUDA's.
foreign_libraries() {
  clean LD_LIBRARY_PATH="$moved/lib" ldd "$moved"/libexec/{ptrain,mpirun,orted} "$moved"/lib/openmpi/*.so | awk '/=>/ && !/ => not found/' | grep -vF "=> $moved/" |
    grep -vE '^\s*(ld-linux|lib(c|m|mvec|pthread|dl|rt|resolv|util|anl|cuda|cudart|cublas|cublasLt|cudnn[a-z_]*|nccl|nvJitLink|nvrtc)\.)'
}
has_only_its_own() { ! foreign_libraries; }
expect "Its libraries are its own, but for glibc's and CUDA's" has_only_its_own

# 3. Two ranks train, under the bundle's mpirun, to the numbers of the build under the system's.
for n in 1 2 3 4 5 6; do echo "{\"input_ids\": [$n, 4$n, 3, 1$n, 5, 9$n, 2, 6]}"; done >"$work/rows.jsonl"
train() {  # mpirun program output
  clean "$1" -np 2 --oversubscribe --bind-to none "$2" "$moved/configs/demo.yaml" --model.path "$moved/configs/models/demo" \
    --parallel.tensor 2 --parallel.pipeline 1 --parallel.data 1 --data.train "$work/rows.jsonl" --data.validation '[]' \
    --data.sequence_length 16 --batch.micro 2 --batch.global 2 --train.steps 3 --checkpoint.every 0 --evaluation.every 0 \
    --log.every 1 --output "$3" </dev/null
}
losses() { grep -oE '"(step|loss|grad_norm)": ?[^,}]*' "$1/metrics.jsonl" >"$1.losses" && [ "$(wc -l <"$1.losses")" -eq 9 ]; }
expect "Its mpirun starts two ranks that train and save" train "$moved/bin/mpirun" "$moved/bin/ptrain" "$work/bundled"
expect "They log every step" losses "$work/bundled"
expect "The build trains the same under the system's mpirun" train "$mpirun" "$build/ptrain" "$work/built"
expect "It logs every step" losses "$work/built"
expect "Both give the same losses and norms to the last digit" same_files "$work/built.losses" "$work/bundled.losses"
expect "The bundle's program generates with the saved model" \
  clean "$moved/bin/ptrain" generate --model "$work/bundled/model" --prompt 1+2 --max-new-tokens 3

# 4. Unicode's tables are cut down, not away: NFKC needs data that the others do not.
mkdir "$work/nfkc"
cp "$source"/tests/fixtures/tokenizers/qwen2_style/*.json "$work/nfkc/"
printf 'ﬁne ① ﬀ x² Å ｆｕｌｌ\n' >"$work/text"
"$build/ptrain" tokenize --model "$work/nfkc" "$work/text" >"$work/ids.nfc"
sed -i 's/"NFC"/"NFKC"/' "$work/nfkc/tokenizer.json"
"$build/ptrain" tokenize --model "$work/nfkc" "$work/text" >"$work/ids.nfkc"
differ() { [ -s "$1" ] && [ -s "$2" ] && ! cmp -s "$1" "$2"; }
expect "The text tells NFKC from NFC" differ "$work/ids.nfc" "$work/ids.nfkc"
expect "The bundle normalises to NFKC as the build does" \
  same_output "$work/ids.nfkc" clean "$moved/bin/ptrain" tokenize --model "$work/nfkc" "$work/text"

# 5. What it refuses.
mkdir "$work/full" "$work/nothing"
touch "$work/full/precious"
expect "A directory with other files is refused" exits 2 "is no bundle" bundle full "$build"
expect "They are kept" test -f "$work/full/precious"
expect "A directory without a program is refused" exits 3 "is missing" bundle second "$work/nothing"
expect "An unknown flag is refused" exits 2 "bash launch/bundle.sh" bundle --what
before=(env PTRAIN_BUNDLE_MIB=5)
expect "Too much is refused, the biggest files named" exits 4 "  libexec/ptrain" bundle second "$build"
expect "Nothing of it is left" test -z "$(find "$work" -maxdepth 1 -name 'second*')"
exit $failed
