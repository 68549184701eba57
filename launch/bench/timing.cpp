#include "launch/bench/timing.h"

#include <chrono>
#include <cstring>

namespace ptrain::bench {
namespace {

/// One register of the widest kind.
constexpr int64_t vector_bytes = __BIGGEST_ALIGNMENT__;
constexpr int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(float));
typedef float Vector __attribute__((vector_size(vector_bytes)));

float sum_of(Vector v) {
  float sum = 0;
  for (int64_t i = 0; i < lanes; ++i) sum += v[i];
  return sum;
}

/// Keeps a result alive that nobody wants.
void use(const std::vector<float>& values) {
  volatile float sink = 0;
  for (float value : values) sink = sink + value;
}

float fma_chains(int thread, int rounds) {
  constexpr int chains = 12;
  Vector sums[chains], factor = Vector{} + 0.999f;
  // Chains that start alike would be computed once.
  for (int i = 0; i < chains; ++i) sums[i] = Vector{} + static_cast<float>(i + thread);
  for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = sums[i] * factor + factor;
  }
  for (int i = 1; i < chains; ++i) sums[0] += sums[i];
  return sum_of(sums[0]);
}

float sum_numbers(const float* data, int64_t count) {
  Vector sums[4] = {};
  for (int64_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
    for (int j = 0; j < 4; ++j) {
      Vector v;
      std::memcpy(&v, data + i + j * lanes, sizeof v);
      sums[j] += v;
    }
  }
  return sum_of(sums[0] + sums[1] + sums[2] + sums[3]);
}

}  // namespace

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Times times_of(std::vector<double> seconds) {
  std::ranges::sort(seconds);
  const size_t n = seconds.size();
  return {.best_s = seconds.front(), .median_s = (seconds[(n - 1) / 2] + seconds[n / 2]) / 2};
}

Times measure(const std::function<void()>& body, double budget_s) {
  body();  // pages and caches
  std::vector<double> seconds;
  for (double spent = 0; seconds.size() < 3 || spent < budget_s; spent += seconds.back()) {
    const double begin_s = now_s();
    body();
    seconds.push_back(now_s() - begin_s);
  }
  return times_of(std::move(seconds));
}

Times measure_together(Communicator& world, const std::function<void()>& body, double budget_s) {
  body();
  std::vector<double> seconds;
  for (double spent = 0; seconds.size() < 3 || spent < budget_s; spent += seconds.back()) {
    world.barrier();
    const double begin_s = now_s();
    body();
    double slowest = now_s() - begin_s;
    world.all_reduce(Tensor(&slowest, {1}, DType::f64), Reduce::max);  // so all agree on when to stop
    seconds.push_back(slowest);
  }
  return times_of(std::move(seconds));
}

double sum_over_ranks(Communicator& world, double value) {
  world.all_reduce(Tensor(&value, {1}, DType::f64));
  return value;
}

OwnedTensor random_tensor(Shape shape, uint64_t stream) {
  OwnedTensor tensor(shape, DType::f32);
  uint64_t state = stream * 0x9e3779b97f4a7c15u + 1;  // statistics do not matter here
  for (float& x : tensor.view.span<float>()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<double>(state >> 40) * 0x1p-23 - 1.0);
  }
  return tensor;
}

double fma_flops(int threads) {
  constexpr int rounds = 200000;
  std::vector<float> sums(static_cast<size_t>(threads));
  const Times times = measure([&] {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; ++thread)
      sums[static_cast<size_t>(thread)] = fma_chains(thread, rounds);
  });
  use(sums);
  return 2.0 * 12 * rounds * static_cast<double>(lanes) * threads / times.best_s;
}

double read_bytes_per_s(int threads) {
  constexpr int64_t count = int64_t{64} << 20;
  const OwnedTensor x = random_tensor({count}, 3);
  const float* data = x.view.as<float>();
  std::vector<float> sums(static_cast<size_t>(threads));
  const Times times = measure([&] {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      const int64_t begin = count * thread / threads, end = count * (thread + 1) / threads;
      sums[static_cast<size_t>(thread)] = sum_numbers(data + begin, end - begin);
    }
  });
  use(sums);
  return 4.0 * static_cast<double>(count) / times.best_s;
}

}  // namespace ptrain::bench
