# What the parts of benchmarks/gpu.sh share: a step is one program with a name, a limit in seconds and two log files; how it
# ended becomes a line of OUT/steps.jsonl. Sourced, not run.

any_test_failed=0
last_code=0

begin_all() {  # seconds
  deadline=$((SECONDS + $1))
  part_deadline=$deadline
  if [ -n "$dry_run" ]; then printf '%-36s %5s  %s\n' step limit command; fi
}

end_all() {
  if [ -z "$dry_run" ]; then echo "gpu: $SECONDS s in all" >&2; fi
}

# The steps behind this take so many seconds at most, together.
begin_part() {  # name seconds
  part_deadline=$((SECONDS + $2))
  if [ "$part_deadline" -gt "$deadline" ]; then part_deadline=$deadline; fi
  if [ -n "$dry_run" ]; then printf '%s, at most %s s\n' "$1" "$2"; else echo "== $1" >&2; fi
}

as_json_text() {  # a line without what JSON's strings must not hold
  tr -d '\000-\037\\"' <<<"$1" | cut -c1-300
}

record() {  # name code seconds limit reason
  printf '{"name": "%s", "code": %d, "seconds": %d, "limit_s": %d, "reason": "%s"}\n' "$1" "$2" "$3" "$4" \
    "$(as_json_text "$5")" >>"$out/steps.jsonl"
}

# Runs a program; last_code is its exit code, 124 when it ran out of time, -1 when there was no time to begin.
step() {  # name limit command...
  local name=$1 limit=$2 left begin reason=
  shift 2
  if [ -n "$dry_run" ]; then
    printf '  %-34s %5s  %s\n' "$name" "$limit" "$*"
    last_code=0
    return
  fi
  left=$((part_deadline - SECONDS))
  if [ "$left" -lt 3 ]; then
    record "$name" -1 0 "$limit" "no time was left"
    last_code=-1
    echo "   $name: no time left" >&2
    return
  fi
  if [ "$limit" -gt "$left" ]; then limit=$left; fi
  begin=$SECONDS
  last_code=0
  timeout --kill-after=5 "$limit" "$@" >"$out/logs/$name.out" 2>"$out/logs/$name.err" </dev/null || last_code=$?
  case $last_code in
    0) ;;
    124 | 137) reason="stopped after $limit s" ;;
    *) reason=$(grep -v '^[[:space:]-]*$' "$out/logs/$name.err" | tail -1) ;;
  esac
  record "$name" "$last_code" $((SECONDS - begin)) "$limit" "$reason"
  echo "   $name: $((SECONDS - begin)) s$([ "$last_code" -eq 0 ] || echo ", code $last_code: $reason")" >&2
}

run_machine() {
  begin_part machine 30
  step machine.gpu 10 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit,mig.mode.current \
    --format=csv,noheader
  step machine.ptrain 10 "$ptrain" --version
}
