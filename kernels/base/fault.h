// Faults on purpose, for tests: named points where a process kills, stops or delays itself, and named wrong
// values that the caller plants. Nothing is armed in ordinary runs: a point is then one load and a branch.
//
//   PTRAIN_FAULT=kill@after_shard:rank2:step4,nan@gradient:rank1:step3 mpirun -np 4 ptrain CONFIG
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace ptrain::fault {

namespace detail {
inline std::atomic<bool> is_armed{false};
void reach(std::string_view name, int64_t step);
bool ask(std::string_view action, std::string_view name, int64_t step);
}  // namespace detail

/// Arms this process. `spec`: ACTION@POINT[:rankN][:stepN][:nthN] or several with commas between; without
/// rank, step or nth it means every rank, every step, every time the point is reached (nth: that time alone,
/// from 1). Actions:
///   kill   SIGKILL to this process          stop    SIGSTOP to this process
///   exit   _exit(1), nothing is flushed     slow    20 ms of sleep; slow500: 500 ms
/// Any other action (nan, inf, huge, flip, eio, …) is one that the code at the point asks for by is_planted.
/// Set once at start by launch/. Errors: ExitCode::usage for what does not read so.
void arm(std::string_view spec, int rank);

/// Does here what was armed for `name`. `step` 0: outside of steps; matches a fault with a step never.
inline void point(std::string_view name, int64_t step = 0) {
  if (detail::is_armed.load(std::memory_order_relaxed)) detail::reach(name, step);
}

/// Whether the caller has to do `action` here, for example to make a gradient NaN.
inline bool is_planted(std::string_view action, std::string_view name, int64_t step = 0) {
  return detail::is_armed.load(std::memory_order_relaxed) && detail::ask(action, name, step);
}

}  // namespace ptrain::fault
