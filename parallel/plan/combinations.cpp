#include "parallel/plan/combinations.h"

#include <algorithm>
#include <bit>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

using enum ScheduleName;

bool has_halves(const ParallelConfig& parallel) {
  return parallel.schedule == zero_bubble;
}

std::optional<Objection> about_stages(const ParallelConfig& parallel) {
  const std::string key = "parallel.virtual_stages";
  const int chunks = parallel.virtual_stages;
  if (chunks < 1) return Objection{key, fmt::format(" = {} must be at least 1", chunks)};
  const bool has_one = parallel.schedule == gpipe || parallel.schedule == one_f_one_b;
  if (has_one && chunks > 1) {
    return Objection{
        key, fmt::format(" = {} needs parallel.schedule interleaved (or zero_bubble with 2): schedule "
                         "{} has one stage a rank; set it to 1, or parallel.schedule to interleaved",
                         chunks, name_of(parallel.schedule))};
  }
  if (parallel.schedule == zero_bubble && chunks > 2) {
    return Objection{
        key, fmt::format(" = {} with parallel.schedule zero_bubble: it has one stage a rank (H1) or "
                         "two, there and back (ZB-V); set it to 2, or parallel.schedule to interleaved",
                         chunks)};
  }
  return std::nullopt;
}

std::optional<Objection> about_halves(const ParallelConfig& parallel) {
  if (!has_halves(parallel)) return std::nullopt;
  if (parallel.recompute != Recompute::none && parallel.recompute_blocks > 0) {
    return Objection{
        "train.recompute",
        fmt::format(" = {} with parallel.schedule zero_bubble: the weights' half of a backward "
                    "comes later and still needs what would be dropped; set it to none, or "
                    "parallel.schedule to {}",
                    name_of(parallel.recompute), parallel.virtual_stages > 1 ? "interleaved" : "1f1b")};
  }
  if (parallel.zero >= 2) {
    return Objection{
        "parallel.zero",
        fmt::format(" = {} with parallel.schedule zero_bubble: gradients are held whole until the "
                    "weights' halves are done, so that nothing is saved; set it to 1, or "
                    "parallel.schedule to {}",
                    parallel.zero, parallel.virtual_stages > 1 ? "interleaved" : "1f1b")};
  }
  return std::nullopt;
}

/// The divisor of `rows` that is a power of two and nearest to `micros`, by ratio.
int64_t nearest_power_of_two(int64_t rows, int64_t micros) {
  int64_t best = 1;
  const auto distance = [&](int64_t power) {
    return power > micros ? static_cast<double>(power) / static_cast<double>(micros)
                          : static_cast<double>(micros) / static_cast<double>(power);
  };
  for (int64_t power = 1; rows % power == 0; power *= 2) {
    if (distance(power) < distance(best)) best = power;
  }
  return best;
}

std::optional<Objection> about_grid_invariance(const ParallelConfig& parallel, int64_t micros) {
  if (!parallel.is_grid_invariant) return std::nullopt;
  if (has_halves(parallel)) {
    return Objection{
        "parallel.schedule",
        fmt::format(" = zero_bubble with train.deterministic grid: a micro-batch's gradients are "
                    "summed as soon as they are whole, and its weights' halves come late; set it "
                    "to {}",
                    parallel.virtual_stages > 1 ? "interleaved" : "1f1b")};
  }
  if (micros <= 1) return std::nullopt;
  if (parallel.zero >= 2 && parallel.data > 1) {
    return Objection{
        "parallel.zero",
        fmt::format(" = {} with train.deterministic grid and {} micro-batches a step on each data "
                    "rank: it sums over ranks after each of them, so that the order of a sum "
                    "depends on the grid; set it to 1, or batch.micro to {} for one micro-batch",
                    parallel.zero, micros, parallel.micro * micros)};
  }
  if (parallel.data > 1 && !std::has_single_bit(static_cast<uint64_t>(micros))) {
    const int64_t rows = parallel.micro * micros;
    const int64_t below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(micros)));
    const int64_t at_once = parallel.micro * parallel.data;
    return Objection{
        "batch.global",
        fmt::format(" = {} makes {} micro-batches a step on each of {} data ranks; with "
                    "train.deterministic grid their number must be a power of two, so that each "
                    "rank sums a whole branch of the tree; set batch.micro to {}, or batch.global "
                    "to {} or {}",
                    parallel.global, micros, parallel.data, rows / nearest_power_of_two(rows, micros),
                    below * at_once, 2 * below * at_once)};
  }
  return std::nullopt;
}

}  // namespace

std::optional<Objection> objection_to(const ParallelConfig& parallel, int64_t micros) {
  if (parallel.zero < 0 || parallel.zero > 3) {
    return Objection{"parallel.zero", fmt::format(" = {}; choose 0, 1, 2 or 3", parallel.zero)};
  }
  if (auto objection = about_stages(parallel)) return objection;
  if (auto objection = about_halves(parallel)) return objection;
  return about_grid_invariance(parallel, micros);
}

void check_combination(const ParallelConfig& parallel, int64_t micros) {
  if (const auto objection = objection_to(parallel, micros)) {
    fail(ExitCode::usage, "{}{}", objection->key, objection->text);
  }
}

void check_stages(const ParallelConfig& parallel, int64_t blocks) {
  const int64_t stages = int64_t{parallel.pipeline} * parallel.virtual_stages;
  if (stages <= blocks) return;
  const bool is_pipeline_possible = parallel.pipeline <= blocks;
  const int64_t most = is_pipeline_possible ? blocks / parallel.pipeline : blocks;
  fail(ExitCode::usage,
       "parallel.pipeline * parallel.virtual_stages = {} * {} = {} stages, but the model has {} blocks and "
       "every stage needs one; set {} to at most {}",
       parallel.pipeline, parallel.virtual_stages, stages, blocks,
       is_pipeline_possible ? "parallel.virtual_stages" : "parallel.pipeline", most);
}

}  // namespace ptrain
