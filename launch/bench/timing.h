// Timing of repeated work: the best call, since other work on the machine only ever adds time, and the
// median, which says what to expect. Not a profiler.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/base/buffer.h"
#include "parallel/comm/communicator.h"

namespace ptrain::bench {

/// Seconds of a steady clock.
double now_s();

struct Times {
  double best_s = 0;
  double median_s = 0;
};

/// Of some measured calls, at least one.
Times times_of(std::vector<double> seconds);

/// Calls `body` once unmeasured, then at least three times and for about `budget_s` seconds.
Times measure(const std::function<void()>& body, double budget_s = 0.15);

/// The same with all ranks starting each call together; the slowest rank's time counts. A collective.
Times measure_together(Communicator& world, const std::function<void()>& body, double budget_s = 0.3);

/// The sum of each rank's value, on every rank. A collective.
double sum_over_ranks(Communicator& world, double value);

/// A tensor of numbers between -1 and 1, its pages touched.   f32
OwnedTensor random_tensor(Shape shape, uint64_t stream);

/// FLOP/s of f32 multiply-adds on registers alone, all threads together.
double fma_flops(int threads);

/// Bytes a second of reading memory that no cache holds, all threads together.
double read_bytes_per_s(int threads);

}  // namespace ptrain::bench
