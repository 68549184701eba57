// Timing of repeated work, on the host by its clock and on a GPU by events in its stream. Not a profiler.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/base/clock.h"
#include "kernels/base/stream.h"
#include "kernels/ops/context.h"
#include "parallel/comm/communicator.h"

namespace ptrain::bench {

/// The best call, since other work on the machine only ever adds time, and the median, which says what to
/// expect.
struct Times {
  double best_s = 0;
  double median_s = 0;
};

/// Of some measured calls, at least one.
Times times_of(std::vector<double> seconds);

using Call = std::function<void()>;

/// On the host: calls `body` once unmeasured, then at least three times and for about `budget_s` seconds.
Times measure(const Call& body, double budget_s = 0.15);

/// Larger than any L2 cache, twice.
inline constexpr int64_t beyond_cache_bytes = int64_t{256} << 20;

/// Times calls where a context computes.
///
/// On a GPU a sample is a run of calls between two events. They are enqueued while the device still fills a
/// buffer of `ballast_bytes`, larger than its L2 cache: so neither the host's enqueueing nor what an earlier
/// call left in the cache is in the time. `calls` work on different memory each: give as many as fill the
/// cache several times (see copies_beyond_cache), and a sample finds none of its data there.
class Stopwatch {
 public:
  explicit Stopwatch(const Context& context, int64_t ballast_bytes = beyond_cache_bytes);

  /// How many sets of `bytes` each fill the cache of a GPU several times, within reason; 1 on a CPU, whose
  /// ops are measured on what its caches hold.
  int64_t copies_beyond_cache(int64_t bytes) const;

  /// Seconds of one call; on the host of calls[0]. Every call runs once unmeasured.
  Times measure(std::span<const Call> calls, double budget_s = 0.15);
  Times measure(const Call& call, double budget_s = 0.15) { return measure(std::span(&call, 1), budget_s); }

  /// What a table shows: the best call of a CPU, and the median of a GPU, whose clocks sink under load.
  double seconds(std::span<const Call> calls, double budget_s = 0.15);
  double seconds(const Call& call, double budget_s = 0.15) { return seconds(std::span(&call, 1), budget_s); }

  /// Of a call that all ranks make together: the slowest rank's time counts. On a GPU calls follow each other
  /// behind an unmeasured one. A collective.
  Times measure_together(Communicator& world, const Call& call, double budget_s = 0.15);

 private:
  double timed_s(std::span<const Call> calls, int64_t count);  // of a call, the mean of `count`
  double cold_s(std::span<const Call> calls, int64_t count);   // the same behind the ballast

  Context context_;
  Buffer ballast_;  // what keeps the device busy and its cache full
  Event begin_, end_;
};

/// On the host, with all ranks starting each call together; the slowest rank's time counts. A collective.
Times measure_together(Communicator& world, const Call& body, double budget_s = 0.3);

/// The sum of each rank's value, and the largest, on every rank. Collectives.
double sum_over_ranks(Communicator& world, double value);
double max_over_ranks(Communicator& world, double value);

}  // namespace ptrain::bench
