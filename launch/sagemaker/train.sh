#!/bin/sh
# Entry point of a SageMaker training job: SageMaker's MPI starts it once a rank, it replaces itself by ptrain.
#
# The program is `ptrain` beside this script, or that of a bundle (launch/bundle.sh) beside or around it, or on PATH;
# PTRAIN names another. Hyperparameters arrive as --key value and override the configuration. SDK v3 breaks on names
# with a dot: there (and elsewhere, if you like) write two underscores for it, optimizer__learning_rate. What
# hyperparameters do not say is filled in from the job:
#   config         the file, default config.yaml beside this script (the hyperparameter `config` names another)
#   channel train, validation    data.train, data.validation: all .jsonl and .h5 files of the channel
#   channel model                model.path: a Hugging Face directory
#   output         what SageMaker copies to S3 while the job runs, where it has checkpoint_s3_uri:
#                  /opt/ml/checkpoints/algo-1/run, see below. Where `checkpoint.upload` is given ptrain itself copies,
#                  which a large model needs: then /opt/ml/local/run
# /opt/ml/model stays empty: its content would be packed and compressed at the end. PTRAIN_SM_MODEL=1 in the job's
# environment has ptrain put the final model there all the same.
set -eu
here=$(dirname "$0")
ml=${SM_ROOT:-/opt/ml}
stop() {  # reason, which the console shows too
  echo "train.sh: $1" >&2
  if [ -d "$ml/input" ] && [ ! -s "$ml/output/failure" ]; then
    mkdir -p "$ml/output" && printf '%s' "$1" >"$ml/output/failure"
  fi
  exit 2
}

# 1. The program. Files that came from S3 have lost their execute bits.
for file in "$here"/ptrain "$here"/bin/* "$here"/libexec/* "$here"/bundle/bin/* "$here"/bundle/libexec/*; do
  if [ -f "$file" ] && [ ! -x "$file" ]; then chmod 755 "$file" || true; fi
done
program=${PTRAIN:-}
for file in "$here/ptrain" "$here/bin/ptrain" "$here/bundle/bin/ptrain" "$(command -v ptrain || true)"; do
  if [ -z "$program" ] && [ -f "$file" ]; then program=$file; fi
done
if [ ! -f "$program" ] || [ ! -x "$program" ]; then stop "no ptrain beside this script, in PTRAIN or on PATH"; fi

# 2. Names with two underscores.
count=$#
while [ "$count" -gt 0 ]; do  # each word in turn, from the front to the back
  word=$1
  shift
  case $word in
    --*__*=*) word=$(printf '%s' "${word%%=*}" | sed 's/__/./g')=${word#*=} ;;
    --*__*) word=$(printf '%s' "$word" | sed 's/__/./g') ;;
  esac
  set -- "$@" "$word"
  count=$((count - 1))
done

# 3. What is not said.
has() {  # whether --KEY is among the words behind it
  wanted=$1
  shift
  for word in "$@"; do
    case $word in --"$wanted" | --"$wanted"=*) return 0 ;; esac
  done
  return 1
}

files() {  # a YAML list of a channel's data files
  list=
  for file in "$1"/*.jsonl "$1"/*.h5; do
    if [ -f "$file" ]; then list="$list${list:+, }$file"; fi
  done
  echo "[$list]"
}

# SageMaker copies /opt/ml/checkpoints of all hosts to one place, where files of one name replace each other, and gives
# all of it back to all of them. So each host has a directory of its own in there. Ranks must agree on a path: with
# several hosts it is /opt/ml/host, which leads to it. Not SM_CURRENT_HOST: under mpirun every rank has the first host's.
set_place() {
  host=$(sed -n 's/.*"current_host": *"\([^"]*\)".*/\1/p' "$ml/input/config/resourceconfig.json" 2>/dev/null || true)
  host=${host:-$(uname -n)}
  place=$ml/checkpoints/$host
  mkdir -p "$place" || stop "$place cannot be made on $host"
  case ${SM_HOSTS:-} in
    *,*)
      ln -sn "$place" "$ml/host" 2>/dev/null || [ -L "$ml/host" ] || stop "$ml/host cannot be made on $host"
      place=$ml/host
      ;;
  esac
}

added=
add() {  # values come from paths of the job, which have no blanks
  added="$added --$1=$2"
}
has config "$@" || add config "$here/config.yaml"
if ! has output "$@"; then
  place=$ml/local
  has checkpoint.upload "$@" || set_place
  add output "$place/run"
fi
if [ -n "${SM_CHANNEL_MODEL:-}" ] && ! has model.path "$@"; then add model.path "$SM_CHANNEL_MODEL"; fi
# shellcheck disable=SC2086
set -- "$@" $added
if [ -n "${SM_CHANNEL_TRAIN:-}" ] && ! has data.train "$@"; then
  set -- "$@" --data.train "$(files "$SM_CHANNEL_TRAIN")"
fi
if [ -n "${SM_CHANNEL_VALIDATION:-}" ] && ! has data.validation "$@"; then
  set -- "$@" --data.validation "$(files "$SM_CHANNEL_VALIDATION")"
fi
exec "$program" "$@"
