// The ops of a training step but the matrix products, at a model's sizes: what each call needs and does.
#pragma once

#include <string>
#include <vector>

#include "launch/bench/workbench.h"

namespace ptrain::bench {

struct OpCase {
  std::string name;
  // What one call does by its definition, whatever an implementation makes of it.
  double bytes = 0;  // read and written
  double flops = 0;  // of matrix products inside; 0 where memory alone bounds it
  double calls = 0;  // in a step
  Prepare prepare;
};

/// For B rows of T tokens. `bench` outlives the cases.
std::vector<OpCase> op_cases(Workbench& bench, const ModelSpec& spec, int64_t B, int64_t T,
                             const Compute& compute);

}  // namespace ptrain::bench
