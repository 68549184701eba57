// The plan as text for people: what `ptrain plan` shows. Not for deciding anything.
#pragma once

#include <optional>
#include <string>

#include "parallel/plan/estimate.h"

namespace ptrain {

struct PrintOptions {
  std::optional<Hardware> hardware;  // adds times and whether it fits
  int columns = 110;                 // width of the schedule's grid
  std::string why = {};              // of what was chosen for the user; see choose()
};

/// Grid and batch, stages, memory of a rank by kind and by phase, the schedule drawn, traffic of a rank and
/// step, and with hardware the time of a step. Ends with a newline.
std::string print_plan(const Plan& plan, const PrintOptions& options = {});

/// 12345678 -> "12,345,678"
std::string with_commas(int64_t number);

}  // namespace ptrain
