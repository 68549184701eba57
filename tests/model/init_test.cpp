// Random initial weights are a function of (seed, name, global index): the same bits however the model is
// cut.
#include "src/model/init.h"

#include <gtest/gtest.h>

#include <map>

#include "src/model/workload.h"
#include "tests/support/golden.h"

namespace ptrain {
namespace {

/// Global tensors by name, put together from what all ranks of a grid draw.
std::map<std::string, std::vector<float>> drawn(const ModelSpec& spec, int tensor, int pipeline,
                                                uint64_t seed) {
  ParallelConfig parallel;
  parallel.tensor = tensor;
  parallel.pipeline = pipeline;
  const Plan plan =
      make_plan(workload_of(spec, SequenceParallel::off, pipeline), parallel, tensor * pipeline);
  std::map<std::string, std::vector<float>> weights;
  for (int rank = 0; rank < tensor * pipeline; ++rank) {
    const Model model(spec, plan, rank, {}, Context{});
    for (const PlacedWeight& weight : model.placed()) {
      initialise(weight, seed, spec.init_range, model.parameters());
      auto& whole = weights[weight.spec.piece.name];
      whole.resize(static_cast<size_t>(weight.spec.piece.shape.numel()), NAN);
      for_each_run(weight.spec.piece.shape, weight.box, [&](int64_t global, int64_t local, int64_t count) {
        std::copy_n(model.parameters().as<float>() + weight.offset + local, count, whole.begin() + global);
      });
    }
  }
  return weights;
}

TEST(Init, IsTheSameOnEveryGridAndDiffersByTheSeed) {
  const ModelSpec spec = read_model_spec(fixture("golden/llama-gqa-tied"));
  const auto whole = drawn(spec, 1, 1, 5);
  EXPECT_EQ(drawn(spec, 3, 1, 5), whole);
  EXPECT_EQ(drawn(spec, 2, 2, 5), whole);
  EXPECT_NE(drawn(spec, 1, 1, 6), whole);
}

TEST(Init, MatricesAreNormalNormsOneBiasesZero) {
  const ModelSpec spec = read_model_spec(fixture("golden/llama-bias"));
  for (const auto& [name, values] : drawn(spec, 1, 1, 5)) {
    double sum = 0, squares = 0;
    for (float value : values) {
      sum += double{value};
      squares += double{value} * double{value};
    }
    const auto n = static_cast<double>(values.size());
    if (name.ends_with("norm.weight")) {
      EXPECT_EQ(sum, n) << name;
    } else if (name.ends_with(".bias")) {
      EXPECT_EQ(squares, 0) << name;
    } else {
      EXPECT_NEAR(std::sqrt(squares / n), spec.init_range, 5 * spec.init_range / std::sqrt(2 * n)) << name;
    }
  }
}

}  // namespace
}  // namespace ptrain
