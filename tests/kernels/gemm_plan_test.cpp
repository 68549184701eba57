// How a product's algorithm is chosen, kept and found again: kernels/cuda's own files over a library that is
// a fake.
#include "kernels/cuda/gemm_plan.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

#include "kernels/cuda/libraries.h"
#include "kernels/cuda/scratch.h"
#include "kernels/cuda/twins.h"
#include "kernels/ops/gemm.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/fake_cublaslt.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

using fake::cublaslt;

constexpr int64_t enough_scratch = cuda::gemm_workspace_bytes + 4096;
constexpr int64_t N = 5, C = 24, O = 7;

/// Operands of one linear layer in bf16, with a weight gradient in f32.
struct Layer {
  TwinTensor x, w, bias, y, dy, dx, dw;

  explicit Layer(TestDevice& device)
      : x(device, {N, C}, DType::bf16, 8),
        w(device, {O, C}, DType::bf16),
        bias(device, {O}, DType::bf16),
        y(device, {N, O}, DType::bf16, 1),
        dy(device, {N, O}, DType::bf16, 1),
        dx(device, {N, C}, DType::bf16, 8),
        dw(device, {O, C}, DType::f32) {
    x.random(1), w.random(2), bias.random(3), y.random(4), dy.random(5), dx.random(6), dw.random(7);
  }

  void run_forward(Context& context) {
    linear_forward(context, on(context, x), on(context, w), {}, on(context, y));
  }
  void run(Context& context) {
    linear_forward(context, on(context, x), on(context, w), on(context, bias), on(context, y),
                   Write::accumulate);
    linear_backward_input(context, on(context, dy), on(context, w), on(context, dx), Write::overwrite);
    linear_backward_weight(context, on(context, dy), on(context, x), on(context, dw), Write::accumulate);
  }
  static Tensor on(const Context& context, TwinTensor& x) {
    return context.device.kind == DeviceKind::cpu ? x.cpu() : x.gpu();
  }
};

/// A file that goes away with the test.
class File {
 public:
  File() : path_(std::filesystem::temp_directory_path() / ("ptrain_products_" + std::to_string(getpid()))) {
    std::filesystem::remove(path_);
  }
  ~File() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

class GemmPlan : public testing::Test {
 protected:
  GemmPlan() { cublaslt() = {}; }
};

TEST_F(GemmPlan, TrialsDoNotShowInWhatTheLayersCompute) {
  TestDevice device(enough_scratch);
  Layer layer(device);
  for (int step = 0; step < 2; ++step) {  // the first one tries, the second one knows
    layer.run(device.cpu());
    layer.run(device.gpu());
    EXPECT_TRUE(layer.y.agrees(roundings(DType::bf16, 8)));
    EXPECT_TRUE(layer.dx.agrees(roundings(DType::bf16, 8)));
    EXPECT_TRUE(layer.dw.agrees(roundings(DType::f32, 8, 32)));
  }
  EXPECT_TRUE(layer.x.same_bits() && layer.w.same_bits() && layer.dy.same_bits());
}

TEST_F(GemmPlan, TheFastestIsKeptAndNothingIsAskedAgain) {
  TestDevice device(enough_scratch);
  Layer layer(device);
  layer.run(device.gpu());
  device.stream().synchronize();
  EXPECT_EQ(cublaslt().estimates, 3);
  for (const fake::Product& product : cublaslt().products) {
    EXPECT_EQ(product.workspace_bytes, static_cast<size_t>(cuda::gemm_workspace_bytes));
    EXPECT_FALSE(product.has_short_sums);
  }
  cublaslt().products.clear();
  emulation::counts() = {};
  for (int step = 0; step < 3; ++step) layer.run(device.gpu());
  EXPECT_EQ(emulation::counts().synchronizations, 0);
  EXPECT_EQ(emulation::counts().allocations, 0);
  EXPECT_EQ(cublaslt().estimates, 3);
  ASSERT_EQ(cublaslt().products.size(), 9u);
  for (const fake::Product& product : cublaslt().products) {
    EXPECT_EQ(product.algorithm, 2u);
    EXPECT_EQ(product.c, product.output);
  }
}

TEST_F(GemmPlan, ASumIsTriedBesideItsOutput) {
  TestDevice device(enough_scratch);
  Layer layer(device);
  linear_backward_weight(device.gpu(), layer.dy.gpu(), layer.x.gpu(), layer.dw.gpu(), Write::accumulate);
  const auto& products = cublaslt().products;
  ASSERT_EQ(products.size(), 13u);  // three candidates, four runs each, and the one that counts
  for (size_t i = 0; i < products.size(); ++i) {
    EXPECT_EQ(products[i].c, layer.dw.gpu().data);
    EXPECT_EQ(products[i].output == layer.dw.gpu().data, i == 12) << i;
  }
  EXPECT_EQ(cublaslt().borrowed, 0);
}

TEST_F(GemmPlan, ASumThatFindsNoMemoryForTrialsTakesTheFirstEstimate) {
  cublaslt().has_memory = false;
  TestDevice device(enough_scratch);
  Layer layer(device);
  layer.run(device.cpu());
  layer.run(device.gpu());
  EXPECT_TRUE(layer.dw.agrees(roundings(DType::f32, 8, 32)));
  EXPECT_EQ(cublaslt().products.back().algorithm, 1u);
}

TEST_F(GemmPlan, AnAlgorithmThatDoesNotRunIsPassedOver) {
  TestDevice device(enough_scratch);
  Layer layer(device);
  cublaslt().fastest = 1, cublaslt().broken = 1;
  layer.run_forward(device.gpu());
  EXPECT_NE(cublaslt().products.back().algorithm, 1u);
}

TEST_F(GemmPlan, ADeterministicRunTakesTheFirstEstimateWhateverTheClockSays) {
  const File file;
  std::vector<double> first;
  {
    TestDevice searching(enough_scratch, {.algorithm_cache = file.path()});
    Layer layer(searching);
    layer.run_forward(searching.gpu());
    searching.gpu().libraries->save();
  }
  cublaslt().products.clear();
  TestDevice device(enough_scratch, {.algorithm_cache = file.path(), .is_deterministic = true});
  Layer layer(device);
  emulation::counts() = {};
  layer.run(device.gpu());
  EXPECT_EQ(emulation::counts().synchronizations, 0);
  ASSERT_EQ(cublaslt().products.size(), 3u);
  for (const fake::Product& product : cublaslt().products) EXPECT_EQ(product.algorithm, 1u);
  EXPECT_EQ(cublaslt().reductions,
            static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
}

TEST_F(GemmPlan, PartsOfASumMeetInF32OrNotAtAll) {
  TestDevice device(enough_scratch);
  Layer layer(device);
  layer.run_forward(device.gpu());
  EXPECT_EQ(cublaslt().reductions & CUBLASLT_REDUCTION_SCHEME_INPLACE, 0u);
  EXPECT_EQ(cublaslt().reductions & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 0u);
}

TEST_F(GemmPlan, NothingIsTriedInACaptureOrWhereTheUserSaysSo) {
  for (bool is_capturing : {true, false}) {
    cublaslt() = {.is_capturing = is_capturing};
    TestDevice device(enough_scratch, {.searches = is_capturing});
    Layer layer(device);
    emulation::counts() = {};
    layer.run(device.gpu());
    EXPECT_EQ(emulation::counts().synchronizations, 0);
    EXPECT_EQ(cublaslt().products.size(), 3u);
    EXPECT_EQ(cublaslt().products.back().algorithm, 1u);
  }
}

TEST_F(GemmPlan, AChoiceIsFoundAgainInTheNextRun) {
  const File file;
  for (bool is_first_run : {true, false}) {
    cublaslt() = {};
    TestDevice device(enough_scratch, {.algorithm_cache = file.path()});
    Layer layer(device);
    layer.run_forward(device.gpu());
    EXPECT_EQ(cublaslt().estimates, is_first_run ? 1 : 0);
    EXPECT_EQ(cublaslt().products.size(), is_first_run ? 13u : 1u);
    EXPECT_EQ(cublaslt().products.back().algorithm, 2u);
    device.gpu().libraries->save();
  }
  // A library that does not take it any more is asked anew.
  cublaslt() = {.forgets = true};
  TestDevice device(enough_scratch, {.algorithm_cache = file.path()});
  Layer layer(device);
  layer.run_forward(device.gpu());
  EXPECT_EQ(cublaslt().estimates, 1);
  EXPECT_EQ(cublaslt().products.back().algorithm, 2u);
}

TEST_F(GemmPlan, AnotherGpusFileOrADamagedOneIsSearchedAnew) {
  const File file;
  std::ofstream(file.path()) << "ptrain algorithms 1\ngpu another GPU\nlibrary 1\nend 0\n";
  TestDevice device(enough_scratch, {.algorithm_cache = file.path()});
  Layer layer(device);
  layer.run_forward(device.gpu());
  EXPECT_EQ(cublaslt().estimates, 1);
}

TEST_F(GemmPlan, TheLibraryLearnsHowAddressesAreAligned) {
  TestDevice device(enough_scratch);
  TwinTensor x(device, {4, 40}, DType::bf16), w(device, {8, 32}, DType::bf16), y(device, {4, 8}, DType::bf16);
  const Tensor odd = x.gpu().column_range(3, 32), even = x.gpu().column_range(8, 32);
  linear_forward(device.gpu(), odd, w.gpu(), {}, y.gpu());
  EXPECT_EQ(cublaslt().alignments[1], 2u);
  linear_forward(device.gpu(), even, w.gpu(), {}, y.gpu());
  EXPECT_EQ(cublaslt().alignments[1], 16u);
  EXPECT_EQ(cublaslt().estimates, 2);
}

TEST_F(GemmPlan, AShapeThatTheLibraryRefusesIsNamed) {
  cublaslt().candidates = 0;
  TestDevice device(enough_scratch);
  Layer layer(device);
  try {
    layer.run_forward(device.gpu());
    FAIL() << "no algorithm, no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::resources);
    EXPECT_NE(std::string(error.what()).find("tn.bf16.bf16.bf16.7.5.24"), std::string::npos) << error.what();
  }
}

TEST_F(GemmPlan, ScratchBoundsTheWorkspace) {
  TestDevice device(100000);
  Layer layer(device);
  layer.run_forward(device.gpu());
  EXPECT_GT(cublaslt().products.back().workspace_bytes, 99000u);
  EXPECT_LE(cublaslt().products.back().workspace_bytes, 100000u);
}

TEST_F(GemmPlan, OnlyForwardProductsOf8BitsMayHaveShortSums) {
  TestDevice device(enough_scratch);
  TwinTensor bytes(device, {16, 16}, DType::u8), scale(device, {1}, DType::f32),
      y(device, {16, 16}, DType::f32);
  scale.fill(2);
  const auto as = [&](DType format) {
    Tensor x = bytes.gpu();
    x.dtype = format;
    return x;
  };
  for (DType format : {DType::f8_e4m3, DType::f8_e5m2}) {
    cuda::linear_quantized(device.gpu(), as(format), scale.gpu(), as(DType::f8_e4m3), scale.gpu(), y.gpu(),
                           Write::overwrite);
    EXPECT_EQ(cublaslt().products.back().has_short_sums, format == DType::f8_e4m3);
  }
}

TEST_F(GemmPlan, VersionsAreThoseOfTheLibraries) {
  EXPECT_EQ(library_versions(DeviceKind::cuda).cublaslt, CUBLAS_VERSION);
  EXPECT_EQ(library_versions(DeviceKind::cpu).cublaslt, 0);
}

}  // namespace
}  // namespace ptrain
