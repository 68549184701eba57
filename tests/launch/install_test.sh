#!/usr/bin/env bash
# `meson install` into a directory: the program runs from there, plans a configuration that was installed with it, and the
# scripts are there. install_test.sh BUILD
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "install: $1" >&2
  exit 1
}
DESTDIR=$work meson install -C "$build" --no-rebuild --quiet
program=$(find "$work" -type f -name ptrain -perm -u+x)
[ "$(wc -l <<<"$program")" = 1 ] || fail "not one program: $program"
"$program" --version | grep -q '^ptrain ' || fail "the program does not say its version"
share=$(dirname "$(find "$work" -type d -path '*/ptrain/configs')")
[ -x "$share/slurm/scaling.sh" ] && [ -x "$share/sagemaker/train.sh" ] || fail "scripts are missing or cannot be run"
[ -f "$(dirname "$share")/doc/ptrain/README.md" ] || fail "the README is missing"
(cd "$(dirname "$share")/ptrain" && "$program" plan configs/demo.yaml --ranks 8 >"$work/plan.txt" 2>&1) || {
  cat "$work/plan.txt" >&2
  fail "an installed configuration cannot be planned"
}
grep -q 'tensor 2' "$work/plan.txt" || fail "the plan is not that of the demo"
