// How fast are the matrix products of a training step and of decoding? Prints GFLOP/s or GB/s and the share
// of what the machine gave in the same run. Usage: gemm [threads]
#include <fmt/format.h>

#include "benchmarks/measure.h"
#include "kernels/ops/gemm.h"

namespace ptrain::bench {
namespace {

struct Layer {
  const char* name;
  int64_t N, C, O;
};

/// SmolLM2-135M with 4 rows of 256 tokens; the head on one chunk of its rows.
const Layer layers[] = {{"qkv", 1024, 576, 960},
                        {"attention out", 1024, 576, 576},
                        {"gate and up", 1024, 576, 3072},
                        {"down", 1024, 1536, 576},
                        {"head, 256 rows", 256, 576, 49152}};

void training_step(Context& context, double limit) {
  fmt::print("{:<18}{:>22}{:>22}{:>22}\n", "training, GFLOP/s", "forward", "backward input",
             "backward weight");
  double flops = 0, seconds = 0;
  for (const Layer& layer : layers) {
    const OwnedTensor x = random_tensor({layer.N, layer.C}, 1), w = random_tensor({layer.O, layer.C}, 2);
    const OwnedTensor y = random_tensor({layer.N, layer.O}, 3), dx({layer.N, layer.C}, DType::f32);
    const OwnedTensor dw({layer.O, layer.C}, DType::f32);
    const double product = 2.0 * static_cast<double>(layer.N * layer.C * layer.O);
    const double weight = best_seconds([&] { linear_backward_weight(context, y.view, x.view, dw.view); });
    const double input = best_seconds([&] { linear_backward_input(context, y.view, w.view, dx.view); });
    const double forward = best_seconds([&] { linear_forward(context, x.view, w.view, {}, y.view); });
    fmt::print("{:<18}", layer.name);
    for (double s : {forward, input, weight}) {
      fmt::print("{:>14.1f} {:>5.1f} %", 1e-9 * product / s, 1e-7 * product / s / limit);
    }
    fmt::print("\n");
    const double repeats = layer.O == 49152 ? 4 : 30;  // calls of a step
    flops += 3 * product * repeats;
    seconds += (forward + input + weight) * repeats;
  }
  fmt::print("{:<18}{:>14.1f} {:>5.1f} %\n", "whole step", 1e-9 * flops / seconds,
             1e-7 * flops / seconds / limit);
}

/// What products that do not depend on the number of threads cost: time over that of the usual ones, in
/// turns.
void price_of_invariance(Context& context) {
  fmt::print("\n{:<18}{:>14}{:>18}{:>18}\n", "thread-invariant", "forward", "backward input",
             "backward weight");
  double usual_s = 0, invariant_s = 0;
  for (const Layer& layer : layers) {
    const OwnedTensor x = random_tensor({layer.N, layer.C}, 1), w = random_tensor({layer.O, layer.C}, 2);
    const OwnedTensor y = random_tensor({layer.N, layer.O}, 3), dx({layer.N, layer.C}, DType::f32);
    const OwnedTensor dw({layer.O, layer.C}, DType::f32);
    fmt::print("{:<18}", layer.name);
    for (int product = 0; product < 3; ++product) {
      double best[2] = {1e9, 1e9};
      for (int turn = 0; turn < 8; ++turn) {
        context.is_thread_invariant = turn % 2 != 0;
        const double s = best_seconds(
            [&] {
              if (product == 0) linear_forward(context, x.view, w.view, {}, y.view);
              if (product == 1) linear_backward_input(context, y.view, w.view, dx.view);
              if (product == 2) linear_backward_weight(context, y.view, x.view, dw.view);
            },
            0.1);
        best[turn % 2] = std::min(best[turn % 2], s);
      }
      const double repeats = layer.O == 49152 ? 4 : 30;  // calls of a step
      usual_s += best[0] * repeats;
      invariant_s += best[1] * repeats;
      fmt::print("{:>14.1f} %  ", 100 * best[1] / best[0]);
    }
    fmt::print("\n");
  }
  context.is_thread_invariant = false;
  fmt::print("{:<18}{:>14.1f} % of the usual time\n", "whole step", 100 * invariant_s / usual_s);
}

void prefill(Context& context, double limit) {
  fmt::print("\n{:<18}{:>14}\n", "few rows", "GFLOP/s");
  for (int64_t N : {2, 4, 8, 16, 32, 64, 256}) {
    const OwnedTensor x = random_tensor({N, 576}, 1), w = random_tensor({3072, 576}, 2);
    const OwnedTensor y({N, 3072}, DType::f32);
    const double s = best_seconds([&] { linear_forward(context, x.view, w.view, {}, y.view); });
    const double product = 2.0 * static_cast<double>(N) * 576 * 3072;
    fmt::print("{:<18}{:>14.1f} {:>5.1f} %\n", fmt::format("gate and up, {}", N), 1e-9 * product / s,
               1e-7 * product / s / limit);
  }
}

/// All weights of the model one after another, as a token of decoding reads them: no cache holds them.
void decode(Context& context, double limit) {
  fmt::print("\n{:<18}{:>14}\n", "decode, 1 row", "GB/s");
  std::vector<OwnedTensor> weights;
  const OwnedTensor x = random_tensor({1, 1536}, 1), y({1, 49152}, DType::f32);
  double bytes = 0;
  for (int block = 0; block < 30; ++block) {
    for (const Layer& layer : layers) {
      if (layer.O == 49152 && block > 0) continue;
      weights.push_back(random_tensor({layer.O, layer.C}, 2));
      bytes += static_cast<double>(weights.back().view.bytes());
    }
  }
  const double s = best_seconds(
      [&] {
        for (const OwnedTensor& w : weights) {
          linear_forward(context, x.view.column_range(0, w.view.columns()), w.view, {},
                         y.view.column_range(0, w.view.rows()));
        }
      },
      0.5);
  fmt::print("{:<18}{:>14.1f} {:>5.1f} %   {:.2f} ms a token\n", "whole model", 1e-9 * bytes / s,
             1e-7 * bytes / s / limit, 1e3 * s);
}

}  // namespace
}  // namespace ptrain::bench

int main(int argc, char** argv) {
  using namespace ptrain;
  Context context;
  context.threads = bench::threads_of(argc, argv);
  const double sgemm = bench::sgemm_peak_gflops(context.threads);
  const double bandwidth = bench::read_bandwidth_gb(context.threads);
  fmt::print("{} threads, {}\nFMA peak {:.1f} GFLOP/s, sgemm {:.1f} GFLOP/s, read bandwidth {:.1f} GB/s\n\n",
             context.threads, cpu::blas_description(), bench::fma_peak_gflops(context.threads), sgemm,
             bandwidth);
  bench::training_step(context, sgemm);
  bench::price_of_invariance(context);
  bench::prefill(context, sgemm);
  bench::decode(context, bandwidth);
}
