// Timing for the benchmark drivers, and the limits of the machine that they compare with. Not a profiler: it
// takes the best of several runs, since other work on the machine only ever adds time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <thread>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/vector.h"
#include "kernels/ops/context.h"

namespace ptrain::bench {

/// Seconds of the fastest call out of about `budget_s` seconds of calls, at least three.
template <class Body>
double best_seconds(const Body& body, double budget_s = 0.25) {
  using Clock = std::chrono::steady_clock;
  body();  // pages and caches
  double best = std::numeric_limits<double>::infinity(), spent = 0;
  for (int call = 0; call < 3 || spent < budget_s; ++call) {
    const Clock::time_point start = Clock::now();
    body();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

/// Threads to use: the first argument of the program, else the cores of the machine.
inline int threads_of(int argc, char** argv) {
  const int asked = argc > 1 ? std::atoi(argv[1]) : 0;
  return asked > 0 ? asked : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// A tensor of standard normal numbers.
inline OwnedTensor random_tensor(Shape shape, uint64_t stream) {
  OwnedTensor tensor(shape, DType::f32);
  uint64_t state = stream * 0x9e3779b97f4a7c15u + 1;  // a stream per tensor; statistics do not matter here
  for (float& x : tensor.view.span<float>()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<double>(state >> 40) * 0x1p-23 - 1.0);
  }
  return tensor;
}

/// GFLOP/s of f32 multiply-adds on registers alone, all threads together.
inline double fma_peak_gflops(int threads) {
  constexpr int chains = 12, rounds = 200000;
  std::vector<float> sinks(static_cast<size_t>(threads));
  const double seconds = best_seconds([&] {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      cpu::Vector<float> sums[chains], factor = cpu::Vector<float>{} + 0.999f;
      // Chains that start alike would be computed once.
      for (int i = 0; i < chains; ++i) sums[i] = cpu::Vector<float>{} + static_cast<float>(i + thread);
      for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) sums[i] = sums[i] * factor + factor;
      }
      for (int i = 1; i < chains; ++i) sums[0] += sums[i];
      sinks[static_cast<size_t>(thread)] = cpu::sum_of<float>(sums[0]);
    }
  });
  volatile float sink = sinks[0];
  static_cast<void>(sink);
  return 2e-9 * chains * rounds * static_cast<double>(cpu::lanes<float>) * threads / seconds;
}

/// GFLOP/s of sgemm where it is best: every thread multiplies square matrices of its own.
inline double sgemm_peak_gflops(int threads) {
  constexpr int64_t n = 1152;
  const OwnedTensor a = random_tensor({threads * n, n}, 1), b = random_tensor({n, n}, 2);
  const OwnedTensor c({threads * n, n}, DType::f32);
  const double seconds = best_seconds(
      [&] {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int thread = 0; thread < threads; ++thread) {
          cpu::blas_gemm(cpu::Transpose::no, cpu::Transpose::no, n, n, n, a.view.as<float>() + thread * n * n,
                         n, b.view.as<float>(), n, 0.0f, c.view.as<float>() + thread * n * n, n);
        }
      },
      1.0);
  return 2e-9 * static_cast<double>(n * n * n) * threads / seconds;
}

/// GB/s of reading memory that no cache holds, all threads together.
inline double read_bandwidth_gb(int threads) {
  constexpr int64_t count = int64_t{96} << 20;
  const OwnedTensor x = random_tensor({count}, 3);
  const float* data = x.view.as<float>();
  std::vector<float> sinks(static_cast<size_t>(threads));
  const double seconds = best_seconds([&] {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; ++thread) {
      cpu::Vector<float> sums[4] = {};
      for (int64_t i = count * thread / threads; i + 4 * cpu::lanes<float> <= count * (thread + 1) / threads;
           i += 4 * cpu::lanes<float>) {
        for (int j = 0; j < 4; ++j) sums[j] += cpu::load(data + i + j * cpu::lanes<float>);
      }
      sinks[static_cast<size_t>(thread)] = cpu::sum_of<float>(sums[0] + sums[1] + sums[2] + sums[3]);
    }
  });
  volatile float sink = sinks[0];
  static_cast<void>(sink);
  return 4e-9 * static_cast<double>(count) / seconds;
}

}  // namespace ptrain::bench
