// What benchmarks are made of, on an emulated GPU: tensors that the host cannot touch, calls by turns between
// events, weights made where they lie. Not for how fast anything is.
#include <gtest/gtest.h>

#include <cmath>

#include "launch/bench/limits.h"
#include "launch/bench/op_cases.h"
#include "launch/bench/products.h"
#include "launch/bench/random_weights.h"
#include "parallel/comm/self_comm.h"
#include "src/infer/decoder.h"
#include "src/model/host_flat.h"
#include "tests/support/twins.h"

namespace ptrain::bench {
namespace {

constexpr int64_t small_ballast = 4096;

ModelSpec small_spec() {
  ModelSpec spec;
  spec.V = 67, spec.C = 48, spec.L = 2, spec.H = 3, spec.K = 1, spec.D = 16, spec.F = 80;
  spec.max_positions = 64;
  spec.init_range = 0.05;
  spec.is_tied = true;
  return spec;
}

std::vector<float> values_of(const Context& context, Tensor tensor) {
  const OwnedTensor host({tensor.numel()}, DType::f32);
  to_host(context, tensor, host.view);
  const std::span<float> values = host.view.span<float>();
  return {values.begin(), values.end()};
}

TEST(BenchDevice, EveryOpOfAStepIsMeasuredInEveryPrecision) {
  TestDevice device;
  const ModelSpec spec = small_spec();
  for (Config::Precision precision :
       {Config::Precision::fp32, Config::Precision::bf16, Config::Precision::fp16, Config::Precision::fp8}) {
    const Compute compute{DeviceKind::cuda, precision};
    Workbench bench(device.gpu(), sizes_of(spec, 1, 19, compute), small_ballast);
    for (const OpCase& op : op_cases(bench, spec, 1, 19, compute)) {
      EXPECT_GT(bench.seconds(op.prepare, 0), 0) << op.name;
      EXPECT_GT(op.bytes, 0) << op.name;
    }
  }
}

TEST(BenchDevice, ProductsOfEveryPrecisionAreMeasured) {
  TestDevice device;
  for (Config::Precision precision :
       {Config::Precision::fp32, Config::Precision::bf16, Config::Precision::fp8}) {
    const ProductTypes types = product_types(precision);
    Workbench bench(device.gpu(), sizes_of_product(32, 48, 80, types.operands), small_ballast);
    for (ProductKind kind :
         {ProductKind::forward, ProductKind::input_gradient, ProductKind::weight_gradient}) {
      const double s = bench.seconds(product(bench.context(), kind, types, 32, 48, 80), 0);
      EXPECT_GT(s, 0) << static_cast<int>(kind) << name_of(types.operands);
    }
  }
}

TEST(BenchDevice, CallsTakeTurnsSoThatNoneMeetsItsOwnMemoryAgain) {
  TestDevice device;
  Stopwatch stopwatch(device.gpu(), small_ballast);
  std::vector<int> order;
  std::vector<Call> calls;
  for (int i = 0; i < 3; ++i) calls.push_back([&order, i] { order.push_back(i); });
  stopwatch.measure(calls, 0);
  ASSERT_EQ(order.size() % 3, 0u);
  EXPECT_GE(order.size(), 15u);  // unmeasured, an estimate, and three samples
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(order[i], static_cast<int>(i % 3)) << i;
}

TEST(BenchDevice, MemoryBeyondTheCacheTakesAsManySetsAsFillItTwice) {
  TestDevice device;
  const Stopwatch gpu(device.gpu(), 1000);
  const struct {
    int64_t bytes, copies;
  } rows[] = {{1, 64}, {31, 64}, {32, 63}, {999, 3}, {1000, 2}, {1999, 2}, {2000, 1}, {1 << 20, 1}};
  for (const auto& row : rows) EXPECT_EQ(gpu.copies_beyond_cache(row.bytes), row.copies) << row.bytes;
  EXPECT_EQ(Stopwatch(device.cpu()).copies_beyond_cache(1), 1);
}

TEST(BenchDevice, RanksMeasureTogetherAndAgree) {
  TestDevice device;
  const std::unique_ptr<Communicator> world = make_self_communicator();
  Stopwatch stopwatch(device.gpu(), small_ballast);
  int calls = 0;
  const Times times = stopwatch.measure_together(
      *world, [&] { ++calls; }, 0);
  EXPECT_GE(times.median_s, times.best_s);
  EXPECT_GE(calls, 5);
}

TEST(BenchDevice, RandomNumbersLieBetweenMinusOneAndOneAndDiffer) {
  TestDevice device;
  Workbench bench(device.gpu(), {}, small_ballast);
  Tensors tensors(bench);
  const Tensor first = tensors.random({7, 131}, DType::bf16), second = tensors.random({7, 131}, DType::bf16);
  const std::vector<float> x = values_of(bench.context(), first), y = values_of(bench.context(), second);
  EXPECT_NE(x, y);
  double sum = 0;
  for (float value : x) {
    EXPECT_LE(std::abs(value), 1);
    sum += value;
  }
  EXPECT_LT(std::abs(sum / static_cast<double>(x.size())), 0.1);
  EXPECT_EQ(tensors.bytes(), 2 * 2 * 7 * 131);
}

TEST(BenchDevice, MadeUpWeightsAreThoseOfTheHostAndTheModelRuns) {
  TestDevice device;
  const ModelSpec spec = small_spec();
  std::vector<std::vector<float>> weights, logits;
  for (Context* context : {&device.cpu(), &device.gpu()}) {
    Decoder decoder(spec, nullptr, *context, 16, DType::f32);
    make_up_weights(*context, spec, decoder.placed(), decoder.parameters());
    weights.push_back(values_of(*context, decoder.parameters()));
    const std::vector<int32_t> prompt = {3, 5, 66, 0, 9};
    const std::span<const float> found = decoder.forward(prompt);
    logits.emplace_back(found.begin(), found.end());
    for (const PlacedWeight& weight : decoder.placed()) {
      double squares = 0;
      for (int64_t i = 0; i < weight.box.numel(); ++i)
        squares += std::pow(weights.back()[static_cast<size_t>(weight.offset + i)], 2);
      const double deviation = std::sqrt(squares / static_cast<double>(weight.box.numel()));
      const bool is_normal = weight.spec.init == Init::normal;
      EXPECT_NEAR(deviation, is_normal ? spec.init_range : 1, is_normal ? 0.01 : 0) << weight.spec.piece.name;
    }
  }
  EXPECT_EQ(weights[0], weights[1]);
  for (size_t i = 0; i < logits[0].size(); ++i) EXPECT_NEAR(logits[1][i], logits[0][i], 1e-4) << i;
}

}  // namespace
}  // namespace ptrain::bench
