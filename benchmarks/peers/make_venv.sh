#!/usr/bin/env bash
# Makes a virtual environment with the programs that ptrain is compared with: PyTorch, transformers, tokenizers and
# llama.cpp. Takes 5 GB of disk and some minutes (llama.cpp is compiled here, for this processor). May be run again:
# what is there is kept. Nothing of ptrain needs it.
#
#   bash benchmarks/peers/make_venv.sh [DIRECTORY]        default: .venv
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-.venv}

command -v python3 >/dev/null || {
  echo "make_venv: python3 is missing; on Debian: apt-get install python3 python3-venv" >&2
  exit 4
}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv" || {
    echo "make_venv: no virtual environment in $venv; on Debian: apt-get install python3-venv" >&2
    exit 4
  }
fi
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)

# PyPI's PyTorch for x86 is linked to CUDA's libraries and does not load without them, also where only the CPU is
# used: that is most of the 5 GB.
"${pip[@]}" --only-binary :all: torch==2.11.0 transformers==5.23.0 tokenizers==0.23.3 safetensors numpy

# PyPI has llama.cpp as source alone. It is compiled for this very processor, as its makers advise.
if ! "$venv/bin/python" -c 'import llama_cpp' 2>/dev/null; then
  if command -v c++ >/dev/null; then
    "${pip[@]}" llama-cpp-python==0.3.36 || echo "make_venv: llama.cpp could not be built; the comparison leaves it out" >&2
  else
    echo "make_venv: no C++ compiler: llama.cpp is left out" >&2
  fi
fi
"$venv/bin/python" - <<'PYTHON'
import importlib

for name in ("torch", "transformers", "tokenizers", "llama_cpp"):
    try:
        print(name, importlib.import_module(name).__version__)
    except ImportError as error:
        print(name, "is missing:", error)
PYTHON
