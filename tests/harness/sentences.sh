# shellcheck shell=bash
# What tests in shell share; sourced. A test says sentences, each with its verdict, and ends with `exit "$failed"`. It has
# set `work`, a directory of its own.
failed=0

# expect SENTENCE COMMAND...: what the command says is shown where it fails.
expect() {
  local sentence=$1
  shift
  if "$@" >"$work/said" 2>&1; then
    echo "ok      $sentence"
  else
    echo "FAILED  $sentence"
    sed 's/^/        /' "$work/said" | tail -30
    failed=1
  fi
}

# exits CODE TEXT COMMAND...: whether the command ends with that code and says that text.
exits() {
  local wanted=$1 text=$2 code=0 said
  shift 2
  said=$("$@" 2>&1) || code=$?
  echo "exit $code, expected $wanted with \"$text\": $said"
  [ "$code" -eq "$wanted" ] && grep -qF -- "$text" <<<"$said"
}

# skip REASON: meson counts 77 as skipped.
skip() {
  echo "skipped: $1"
  exit 77
}
