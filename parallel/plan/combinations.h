// Choices of a configuration that exclude each other, whatever the model: schedules, stages a rank, ZeRO,
// recompute, sums that no grid changes. Not for sizes that the model or the world must allow: see plan.h.
// Pure.
#pragma once

#include <optional>
#include <string>

#include "parallel/plan/workload.h"

namespace ptrain {

/// What is wrong with a combination.
struct Objection {
  std::string key;   // to change: "parallel.virtual_stages"
  std::string text;  // to go behind the key or its place: " = 2 needs …, because …; set …"
};

/// The first rule that `parallel` breaks with `micros` micro-batches a step and data rank, the reason and the
/// nearest combination that is possible; nothing where there is none.
std::optional<Objection> objection_to(const ParallelConfig& parallel, int64_t micros);

/// Throws the objection. Errors: ExitCode::usage.
void check_combination(const ParallelConfig& parallel, int64_t micros);

/// The stages that pipeline and virtual_stages ask for against the model's blocks: every stage needs one.
/// Errors: ExitCode::usage, with the most that is possible.
void check_stages(const ParallelConfig& parallel, int64_t blocks);

}  // namespace ptrain
