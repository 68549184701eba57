// The proof that no choice of grid, schedule, sharing or recompute changes a loss curve: its cases, the
// sample of them that tests run, and how far a run is from its reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "src/io/json.h"
#include "tests/support/cover.h"
#include "tests/support/curve.h"
#include "tests/support/tolerances.h"

namespace ptrain {

/// The golden cases, the quickest first: where two of them show the same, a cover takes the first.
inline std::vector<CurveCase> golden_curves() {
  std::vector<CurveCase> curves;
  for (const char* name : {"llama-bias", "llama-gqa-tied", "llama-grid"}) curves.emplace_back(name);
  return curves;
}

struct ProofCase {
  int model = 0;  // of golden_curves()
  Grid grid;
};

/// The whole product that fits on `world` ranks.
inline std::vector<ProofCase> all_cases(const std::vector<CurveCase>& curves, int world) {
  std::vector<ProofCase> cases;
  for (size_t model = 0; model < curves.size(); ++model) {
    for (const Grid& grid : all_grids(curves[model], world)) cases.push_back({static_cast<int>(model), grid});
  }
  return cases;
}

inline std::vector<Choices> choices_of(const std::vector<ProofCase>& cases) {
  std::vector<Choices> rows;
  for (const auto& [model, grid] : cases) {
    // A schedule with other chunks is another schedule.
    rows.push_back({model, grid.tensor, grid.pipeline, grid.data, static_cast<int>(grid.micro),
                    grid.is_sequence_parallel, grid.tensor_strips, grid.zero,
                    8 * static_cast<int>(grid.schedule) + grid.chunks, static_cast<int>(grid.recompute),
                    grid.is_grid_invariant});
  }
  return rows;
}

/// Some of `all`, in which every value or every pair of values of two choices comes.
inline std::vector<ProofCase> sample_of(const std::vector<ProofCase>& all, Cover cover) {
  std::vector<ProofCase> sample;
  for (size_t index : cover_of(choices_of(all), cover)) sample.push_back(all[index]);
  return sample;
}

/// Of one curve.
inline std::vector<Grid> sample_of(const CurveCase& golden, int world, Cover cover) {
  std::vector<ProofCase> all;
  for (const Grid& grid : all_grids(golden, world)) all.push_back({0, grid});
  std::vector<Grid> sample;
  for (const ProofCase& one : sample_of(all, cover)) sample.push_back(one.grid);
  return sample;
}

/// The most that any step is off the curve, relative; and the first step that is too far, in words.
struct CurveDeviation {
  double loss = 0, grad_norm = 0;
  std::string fault;  // empty where all steps are within golden_loss and golden_grad_norm

  void include(const CurveDeviation& other) {
    loss = std::max(loss, other.loss);
    grad_norm = std::max(grad_norm, other.grad_norm);
  }
};

inline CurveDeviation deviation_of(const CurveCase& golden, const std::vector<StepResult>& results,
                                   int64_t first_step = 1) {
  CurveDeviation most;
  for (size_t i = 0; i < results.size(); ++i) {
    const int64_t step = first_step + static_cast<int64_t>(i);
    const Json& want = golden.curve["curve"][static_cast<size_t>(step - 1)];
    const auto off = [](double is, double should) {
      // A number that is none is off by everything.
      const double relative = std::abs(is - should) / std::abs(should);
      return std::isfinite(relative) ? relative : HUGE_VAL;
    };
    const double loss = off(results[i].loss, want["loss"].get<double>());
    const double norm = off(results[i].grad_norm, want["grad_norm"].get<double>());
    most.include({loss, norm, ""});
    if (!most.fault.empty()) continue;
    if (loss > tolerance::golden_loss) {
      most.fault = fmt::format("step {}: loss {:.9g}, reference {:.9g}", step, results[i].loss,
                               want["loss"].get<double>());
    } else if (norm > tolerance::golden_grad_norm) {
      most.fault = fmt::format("step {}: norm {:.9g}, reference {:.9g}", step, results[i].grad_norm,
                               want["grad_norm"].get<double>());
    } else if (std::abs(results[i].learning_rate - want["lr"].get<double>()) > 1e-15) {
      most.fault = fmt::format("step {}: lr {:.9g}, reference {:.9g}", step, results[i].learning_rate,
                               want["lr"].get<double>());
    } else if (results[i].supervised_tokens != want["supervised_tokens"].get<int64_t>()) {
      most.fault = fmt::format("step {}: {} supervised tokens", step, results[i].supervised_tokens);
    }
  }
  return most;
}

}  // namespace ptrain
