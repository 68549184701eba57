#include "launch/bench/timing.h"

#include <cmath>

#include "kernels/base/runtime.h"

namespace ptrain::bench {
namespace {

constexpr int ballast_fills = 8;  // about half a millisecond on an H200
constexpr double sample_target_s = 2e-3;
constexpr int64_t most_calls = 64;  // are enqueued while the fills run

/// Samples until `budget_s` is spent, at least three.
template <class Sample>
Times repeat(double budget_s, Sample sample) {
  std::vector<double> seconds;
  for (double spent = 0; seconds.size() < 3 || spent < budget_s;) {
    const auto [each_s, all_s] = sample();
    seconds.push_back(each_s);
    spent += all_s;
  }
  return times_of(std::move(seconds));
}

struct Sample {
  double each_s = 0;  // of a call
  double all_s = 0;   // what it took of the budget
};

double seconds_of(const Call& body) {
  const double begin_s = now_s();
  body();
  return now_s() - begin_s;
}

/// How many calls a sample has: whole turns, so that none comes twice before all have.
int64_t calls_of_sample(int64_t kinds, double call_s) {
  const double wanted = std::ceil(sample_target_s / std::max(call_s, 1e-7) / static_cast<double>(kinds));
  const int64_t most = std::max<int64_t>(1, most_calls / kinds);
  return kinds * std::clamp<int64_t>(static_cast<int64_t>(wanted), 1, most);
}

}  // namespace

Times times_of(std::vector<double> seconds) {
  std::ranges::sort(seconds);
  const size_t n = seconds.size();
  return {.best_s = seconds.front(), .median_s = (seconds[(n - 1) / 2] + seconds[n / 2]) / 2};
}

Times measure(const Call& body, double budget_s) {
  body();  // pages and caches
  return repeat(budget_s, [&] {
    const double s = seconds_of(body);
    return Sample{s, s};
  });
}

Times measure_together(Communicator& world, const Call& body, double budget_s) {
  body();
  return repeat(budget_s, [&] {
    world.barrier();
    const double s = max_over_ranks(world, seconds_of(body));  // so all agree on when to stop
    return Sample{s, s};
  });
}

Stopwatch::Stopwatch(const Context& context, int64_t ballast_bytes) : context_(context) {
  if (context.device.kind == DeviceKind::cpu) return;
  ballast_ = Buffer(ballast_bytes, context.device);
  begin_ = Event(context.device, true);
  end_ = Event(context.device, true);
}

double Stopwatch::timed_s(std::span<const Call> calls, int64_t count) {
  const Stream& stream = *context_.stream;
  stream.record(begin_);
  for (int64_t i = 0; i < count; ++i) calls[static_cast<size_t>(i) % calls.size()]();
  stream.record(end_);
  end_.synchronize();
  return seconds_between(begin_, end_) / static_cast<double>(count);
}

double Stopwatch::cold_s(std::span<const Call> calls, int64_t count) {
  for (int i = 0; i < ballast_fills; ++i)
    runtime::set_async(ballast_.data(), i, ballast_.bytes(), context_.stream->native());
  return timed_s(calls, count);
}

Times Stopwatch::measure(std::span<const Call> calls, double budget_s) {
  check(!calls.empty(), "nothing to measure");
  if (context_.device.kind == DeviceKind::cpu) return bench::measure(calls[0], budget_s);
  for (const Call& call : calls) call();  // algorithms are chosen, kernels loaded
  context_.stream->synchronize();
  const auto kinds = static_cast<int64_t>(calls.size());
  const int64_t count = calls_of_sample(kinds, cold_s(calls, kinds));
  return repeat(budget_s, [&] {
    const double begin_s = now_s();
    const double each_s = cold_s(calls, count);
    return Sample{each_s, now_s() - begin_s};
  });
}

double Stopwatch::seconds(std::span<const Call> calls, double budget_s) {
  const Times times = measure(calls, budget_s);
  return context_.device.kind == DeviceKind::cpu ? times.best_s : times.median_s;
}

Times Stopwatch::measure_together(Communicator& world, const Call& call, double budget_s) {
  if (context_.device.kind == DeviceKind::cpu) return bench::measure_together(world, call, budget_s);
  const auto slowest_s = [&](int64_t count) {
    world.barrier();
    call();  // unmeasured: behind it the ranks' streams begin together
    return max_over_ranks(world, timed_s(std::span(&call, 1), count));
  };
  slowest_s(1);
  const int64_t count = calls_of_sample(1, slowest_s(1));
  return repeat(budget_s, [&] {
    const double each_s = slowest_s(count);
    return Sample{each_s, each_s * static_cast<double>(count)};  // the same on every rank
  });
}

int64_t Stopwatch::copies_beyond_cache(int64_t bytes) const {
  if (context_.device.kind == DeviceKind::cpu) return 1;
  const int64_t each = std::max<int64_t>(bytes, 1);
  return std::clamp<int64_t>((2 * ballast_.bytes() + each - 1) / each, 1, most_calls);
}

double sum_over_ranks(Communicator& world, double value) {
  world.all_reduce(Tensor(&value, {1}, DType::f64));
  return value;
}

double max_over_ranks(Communicator& world, double value) {
  world.all_reduce(Tensor(&value, {1}, DType::f64), Reduce::max);
  return value;
}

}  // namespace ptrain::bench
