// Times of a plan on hardware, whether it fits, and what would: as text for people.
#pragma once

#include "parallel/plan/advice.h"

namespace ptrain {

/// The time of a step and its parts, what was assumed, and the line that says whether the plan fits.
std::string print_estimate(const Plan& plan, const Hardware& hardware);

/// The changes as a table: keys as the user would write them, memory, seconds a step, price against
/// `before_s`.
std::string print_advice(const Advice& advice, const Hardware& hardware, double before_s);

}  // namespace ptrain
