#!/usr/bin/env bash
# ptrain beside PyTorch, transformers, Hugging Face tokenizers and llama.cpp: the same work, in turns, on the same
# cores. About ten minutes; nothing else should run meanwhile. Prints a table; what was measured stays in
# runs/compare/ (every run's figures in results.jsonl, what the programs said in log.txt).
#
#   bash benchmarks/compare.sh MODEL_DIR [OPTION...]           MODEL_DIR: SmolLM2-135M, made by ptrain import
#     --gguf FILE      what MODEL_DIR was imported from; without it llama.cpp is left out
#                      (default: models/SmolLM2-135M-Instruct.Q4_1.gguf if it is there)
#     --venv DIR       of benchmarks/peers/make_venv.sh (default: .venv); without one there are only our figures
#     --build DIR      (default: build)
#     --rounds N       turns of everything (default: 4)       --steps N   training steps of a turn (default: 4)
#     --threads N      (default: 2)                           --only WORDS  of step,decode,tokenizer
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
model=$1
shift
venv=.venv build=build gguf=models/SmolLM2-135M-Instruct.Q4_1.gguf
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --venv) venv=${2:?} && shift 2 ;;
    --build) build=${2:?} && shift 2 ;;
    --gguf) gguf=${2:?} && shift 2 ;;
    *) rest+=("$1") && shift ;;
  esac
done
if [ ! -f "$model/config.json" ]; then
  echo "compare: $model/config.json is missing. To make the model:" >&2
  echo "  bash launch/get_smollm2.sh models && $build/ptrain import models/SmolLM2-135M-Instruct.Q4_1.gguf $model" >&2
  exit 3
fi

bash launch/setup.sh "$build" ptrain benchmarks/bench_tokenizer
out=runs/compare
mkdir -p "$out"

# English that every Debian machine has: the licences' prose and, where apt knows packages, their descriptions.
text=$out/english.txt
if [ ! -s "$text" ]; then
  {
    find /usr/share/common-licenses -type f | sort | xargs -r cat
    { apt-cache dumpavail 2>/dev/null || true; } | sed -n 's/^Description\(-en\)\?: //p' | LC_ALL=C sort -u | awk 'NR <= 50000'
  } >"$text.part"
  mv "$text.part" "$text"
fi

python=$venv/bin/python
if [ ! -x "$python" ]; then
  echo "compare: no virtual environment in $venv: only ptrain is measured (bash benchmarks/peers/make_venv.sh)" >&2
  python=$(command -v python3) || { echo "compare: python3 is missing" >&2 && exit 4; }
  venv=
fi
exec "$python" benchmarks/compare.py --model "$model" --build "$build" --venv "$venv" --gguf "$gguf" --out "$out" \
  --text "$text" "${rest[@]}"
