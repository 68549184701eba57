#!/bin/sh
# Entry point of a SageMaker training job: SageMaker's MPI starts it once a rank, it replaces itself by ptrain.
#
# Hyperparameters arrive as --key value and override the configuration. SDK v3 breaks on names with a dot: there (and
# elsewhere, if you like) write two underscores for it, optimizer__learning_rate. What hyperparameters do not say is
# filled in from the job's channels:
#   config         the file, default config.yaml beside this script (the hyperparameter `config` names another)
#   channel train, validation    data.train, data.validation: all .jsonl and .h5 files of the channel
#   channel model                model.path: a Hugging Face directory
#   output                       /opt/ml/checkpoints/run, which SageMaker copies to S3 where the job has
#                                checkpoint_s3_uri; /opt/ml/local/run where `checkpoint.upload` is given: then ptrain
#                                itself copies, which a large model needs
# /opt/ml/model stays empty: its content would be packed and compressed at the end. PTRAIN_SM_MODEL=1 in the job's
# environment puts the final model there all the same.
set -eu
here=$(dirname "$0")
program=${PTRAIN:-$here/ptrain}
[ -x "$program" ] || program=$(command -v ptrain) || {
  echo "train.sh: no ptrain beside this script, in PTRAIN or on PATH" >&2
  exit 2
}

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

added=
add() {  # values come from paths of the job, which have no blanks
  added="$added --$1=$2"
}
has config "$@" || add config "$here/config.yaml"
if ! has output "$@"; then
  if has checkpoint.upload "$@"; then add output /opt/ml/local/run; else add output /opt/ml/checkpoints/run; fi
fi
if [ -n "${SM_CHANNEL_MODEL:-}" ] && ! has model.path "$@"; then add model.path "$SM_CHANNEL_MODEL"; fi
set -- "$@" $added
if [ -n "${SM_CHANNEL_TRAIN:-}" ] && ! has data.train "$@"; then
  set -- "$@" --data.train "$(files "$SM_CHANNEL_TRAIN")"
fi
if [ -n "${SM_CHANNEL_VALIDATION:-}" ] && ! has data.validation "$@"; then
  set -- "$@" --data.validation "$(files "$SM_CHANNEL_VALIDATION")"
fi
exec "$program" "$@"
