# The GPU tests, whole and under compute-sanitizer: every program that is named test_gpu_*. Sourced by benchmarks/gpu.sh.

run_tests() {
  begin_part tests 110
  local test command found=
  while read -r test; do
    if [ -z "$test" ]; then continue; fi
    found=yes
    test_command "$test"
    step "test.$(basename "$test")" "${GPU_TEST_LIMIT_S:-60}" "${command[@]}" --gtest_brief=0 --gtest_color=no
    note_test
  done < <(list_tests)
  if [ -z "$found" ]; then
    if [ -n "$dry_run" ]; then echo "  (no test_gpu_* found: a build with nvcc makes them)"; else
      record test.none 1 0 0 "no program test_gpu_* was found"
      any_test_failed=1
    fi
  fi
}

# What has no time is not a failure; 77 is how a test says that it cannot run here.
note_test() {
  case $last_code in 0 | -1 | 77) ;; *) any_test_failed=1 ;; esac
}

find_sanitizer() {
  command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null ||
    ls /usr/local/cuda/compute-sanitizer/compute-sanitizer 2>/dev/null
}

# Hand-written kernels alone: whole models take too long under the sanitizer, and NCCL and cuBLASLt are not ours to test.
run_sanitizer() {
  begin_part sanitizer 110
  local sanitizer test tool command name
  if ! sanitizer=$(find_sanitizer | head -1) || [ -z "$sanitizer" ]; then
    if [ -z "$dry_run" ]; then
      record sanitizer.none -1 0 0 "compute-sanitizer is not on this machine"
      return
    fi
    sanitizer=compute-sanitizer
  fi
  for tool in memcheck racecheck; do
    while read -r test; do
      name=$(basename "${test:-none}")
      case $name in none | *nccl* | *comm* | *rank* | *golden* | *curve* | *train* | *model* | *gemm* | *generate*) continue ;; esac
      test_command "$test"
      step "$tool.$name" 30 "$sanitizer" --tool "$tool" --error-exitcode 9 --target-processes all "${command[@]}" \
        --gtest_color=no
      note_test
    done < <(list_tests)
  done
}
