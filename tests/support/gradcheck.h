// Gradients against central differences of a loss, in f64.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {

/// `analytic` is the gradient of loss() by `parameters`, which loss() reads. Every entry is moved up and down
/// once. Use: EXPECT_TRUE(gradient_matches(loss, x.span(), dx.values()));
inline testing::AssertionResult gradient_matches(const std::function<double()>& loss,
                                                 std::span<double> parameters,
                                                 const std::vector<double>& analytic) {
  std::vector<double> numeric;
  for (double& p : parameters) {
    const double kept = p, step = tolerance::central_difference_step;
    p = kept + step;
    const double above = loss();
    p = kept - step;
    const double below = loss();
    p = kept;
    numeric.push_back((above - below) / (2 * step));
  }
  return close(analytic, numeric, tolerance::gradient_check);
}

}  // namespace ptrain
