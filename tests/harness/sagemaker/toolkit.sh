#!/usr/bin/env bash
# A virtual environment with what runs in SageMaker's containers: the toolkit of SDK v2 (sagemaker-training), and the
# drivers that SDK v3 sends along, files of its wheels, with mpi4py. From PyPI; the toolkit has a C extension.
#
#   toolkit.sh VENV          nothing is done twice; exit code 77, with the reason, where it cannot be had
set -uo pipefail
venv=$1
toolkit=5.1.4 train=1.27.0 core=2.27.0  # the versions that SDK 3.27.0 asks for
skip() {
  echo "toolkit: $*" >&2
  exit 77
}
[ ! -f "$venv/complete" ] || exit 0
command -v python3 >/dev/null || skip "python3 is missing"
python3 -c 'import venv, ensurepip' 2>/dev/null || skip "python3 has no venv (Debian: python3-venv)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
python3 -m venv "$venv" || skip "no virtual environment can be made in $venv"
pip() { timeout 300 "$venv/bin/pip" -q --disable-pip-version-check "$@" >"$log" 2>&1; }
pip install "sagemaker-training==$toolkit" mpi4py ||
  skip "pip cannot install sagemaker-training and mpi4py (they need PyPI, gcc and Python's headers): $(tail -n 1 "$log")"
pip download --no-deps -d "$venv/v3" "sagemaker-train==$train" "sagemaker-core==$core" ||
  skip "pip cannot download SDK v3: $(tail -n 1 "$log")"
for wheel in "$venv"/v3/*.whl; do "$venv/bin/python" -m zipfile -e "$wheel" "$venv/v3"; done
touch "$venv/complete"
