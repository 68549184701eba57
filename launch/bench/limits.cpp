#include "launch/bench/limits.h"

#include <cstring>

#include "kernels/base/stream.h"
#include "launch/bench/products.h"
#include "launch/bench/timing.h"
#include "launch/bench/workbench.h"

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
  const OwnedTensor x({count}, DType::f32);
  for (float& value : x.view.span<float>()) value = 1;  // its pages are touched
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

double copy_bytes_per_s(const Context& context) {
  constexpr int64_t bytes = int64_t{512} << 20;  // far more than any cache
  const OwnedTensor from({bytes}, DType::u8, context.device), to({bytes}, DType::u8, context.device);
  Stopwatch stopwatch(context);
  const Call copy = [&] { transfer(from.view, to.view, *context.stream); };
  return 2.0 * static_cast<double>(bytes) / stopwatch.measure(copy, 0.3).median_s;
}

int64_t square_size(DeviceKind kind) {
  return kind == DeviceKind::cpu ? 2048 : 8192;
}

double square_flops(const Context& context, DType dtype) {
  const int64_t n = square_size(context.device.kind);
  Workbench bench(context, sizes_of_product(n, n, n, dtype));
  const ProductTypes types{.operands = dtype, .result = dtype == DType::f8_e4m3 ? DType::bf16 : dtype};
  const double s = bench.seconds(product(bench.context(), ProductKind::forward, types, n, n, n), 1.0);
  return 2.0 * static_cast<double>(n) * static_cast<double>(n * n) / s;
}

}  // namespace ptrain::bench
