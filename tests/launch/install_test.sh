#!/usr/bin/env bash
# `meson install` into a directory: the program runs from there, plans a configuration that was installed with it, and the
# scripts are there. install_test.sh BUILD
set -uo pipefail
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=../harness/sentences.sh
. "$(dirname "$0")/../harness/sentences.sh"
expect "It installs" env DESTDIR="$work/there" meson install -C "$build" --no-rebuild --quiet
program=$(find "$work/there" -type f -name ptrain -perm -u+x)
share=$(dirname "$(find "$work/there" -type d -path '*/ptrain/configs')")
expect "There is one program" test "$(wc -l <<<"$program")" = 1
expect "The program says its version" exits 0 "ptrain " "$program" --version
expect "Slurm's scripts can be run" test -x "$share/slurm/scaling.sh"
expect "SageMaker's scripts can be run" test -x "$share/sagemaker/train.sh"
expect "The README is there" test -f "$(dirname "$share")/doc/ptrain/README.md"
plan() { (cd "$share" && "$program" plan configs/demo.yaml --ranks 8); }
expect "An installed configuration can be planned" exits 0 "tensor 2" plan
exit "$failed"
