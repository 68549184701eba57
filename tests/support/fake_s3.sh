#!/bin/sh
# s5cmd, aws or rclone, as it is called, on ROOT/s3 instead of S3, where this file lies in ROOT/bin. See fake_s3.h.
R=$(dirname "$(dirname "$0")") name=${0##*/}

while :; do
  case "$1" in
    --retry-count | --log | --s3-provider | --low-level-retries | --retries) shift 2 ;;
    --json | --s3-env-auth | --s3-no-check-bucket | --quiet | s3) shift ;;
    *) break ;;
  esac
done
verb=$1
shift
while :; do
  case "$1" in
    --raw | --recursive | --only-show-errors | --files-only) shift ;;
    --expected-size | --size) shift 2 ;;
    *) break ;;
  esac
done

here() { # the file of an object
  object=${1#s3://}
  echo "$R/s3/${object#:s3:}"
}
is_s3() { case "$1" in s3://* | :s3:*) true ;; *) false ;; esac; }
note() { echo "$*" >>"$R/calls"; }

put() { # SOURCE OBJECT; SOURCE may be - for stdin
  plan=$(head -n 1 "$R/plan")
  sed -i 1d "$R/plan"
  case "$plan" in
    fail) echo 'ERROR "put": RequestError: send request failed' >&2 && exit 1 ;;
    denied) echo 'ERROR "put": AccessDenied: status code: 403' >&2 && exit 1 ;;
    leak) echo "AccessDenied: $AWS_SECRET_ACCESS_KEY was refused" >&2 && exit 1 ;;
    hang) exec sleep 1000 ;;
  esac
  to=$(here "$2")
  mkdir -p "${to%/*}"
  cat "$1" >"$to" # - is stdin
  [ "$plan" != half ] || truncate -s "$(($(stat -c %s "$to") / 2))" "$to"
  case "$1" in */MANIFEST.json) look_for_torn "${1%/*}" "${to%/*}" ;; esac
}

look_for_torn() { # FROM TO: the manifest has come, is all else there?
  (cd "$1" && find . -type f ! -name MANIFEST.json) | while read -r file; do
    cmp -s "$1/$file" "$2/$file" || echo "$file" >>"$R/torn"
  done
}

list() { # PLACE
  directory=$(here "$1")
  [ "$name" != rclone ] || printf '['
  comma=
  [ ! -d "$directory" ] || (cd "$directory" && find . -type f | sort) | while read -r file; do
    file=${file#./} size=$(stat -c %s "$directory/$file") prefix=${1#s3://}
    case "$name" in
      s5cmd) printf '{"key":"%s/%s","type":"file","size":%s}\n' "$1" "$file" "$size" ;;
      aws) printf '2026-01-31 10:00:00 %10s %s/%s\n' "$size" "${prefix#*/}" "$file" ;;
      rclone) printf '%s{"Path":"%s","Size":%s}' "$comma" "$file" "$size" && comma=, ;;
    esac
  done
  [ "$name" != rclone ] || printf ']'
  [ -n "$(find "$directory" -type f 2>/dev/null | head -n 1)" ] && return
  [ "$name" != s5cmd ] || echo '{"operation":"ls","error":"no object found"}' >&2
  [ "$name" = rclone ] || exit 1
}

case "$verb" in
  cp | copyto)
    if [ "$1" = - ]; then
      note "pipe $2" && put - "$2"
    elif is_s3 "$1" && [ "$2" = - ]; then
      note "read $1" && cat "$(here "$1")"
    elif is_s3 "$1"; then
      note "down $1" && cat "$(here "$1")" >"$2"
    else
      note "up $2" && put "$1" "$2"
    fi
    ;;
  pipe | rcat) note "pipe $1" && put - "$1" ;;
  cat) note "read $1" && cat "$(here "$1")" ;;
  rm | deletefile) note "rm $1" && rm "$(here "$1")" ;;
  ls | lsjson)
    place=${1%\*}
    note "ls $place" && list "${place%/}"
    ;;
  *) echo "ERROR unknown verb $verb" >&2 && exit 1 ;;
esac
