// The learning rate of a step: a pure function of the step's number.
#pragma once

#include <cstdint>

#include "src/train/config.h"

namespace ptrain {

/// Of step s (from 1) of S: warm-up, then the schedule of INTERFACE.md section 2.
double learning_rate(const Config::Optimizer& optimizer, int64_t step, int64_t steps);

}  // namespace ptrain
