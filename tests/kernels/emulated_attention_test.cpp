// The attention kernels beside their CPU twin, which computes in f64 from the same rounded operands.
#include "kernels/ops/attention.h"

#include <gtest/gtest.h>

#include "kernels/ops/elementwise.h"
#include "tests/kernels/attention_cases.h"
#include "tests/support/close.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

enum class Layout { separate, fused };  // q, k, v of their own, or columns of one tensor

struct KernelCase {
  AttentionCase what;
  Layout layout = Layout::separate;
};

AttentionDims dims(int64_t B, int64_t T, int64_t H, int64_t K, int64_t D, int64_t group = 1,
                   int64_t first_head = 0, int64_t window = 0) {
  return {B, T, H, K, D, group, first_head, 1 / std::sqrt(static_cast<double>(D)), window};
}

std::vector<KernelCase> kernel_cases() {
  return {{{"one token", dims(1, 1, 1, 1, 16), {}}},
          {{"seven tokens", dims(2, 7, 3, 3, 64), {}}, Layout::fused},
          {{"a head size that vectors do not fit", dims(2, 9, 2, 2, 5), {}}, Layout::fused},
          {{"one less than a tile", dims(1, 63, 1, 1, 80), {}}},
          {{"a tile", dims(1, 64, 2, 1, 16, 2), {}}, Layout::fused},
          {{"a tile and one", dims(1, 65, 1, 1, 128), {}}},
          {{"two tiles and two", dims(1, 130, 2, 1, 64, 2), {}}, Layout::fused},
          {{"head size 96", dims(1, 70, 1, 1, 96), {}}},
          {{"head size 256", dims(1, 21, 1, 1, 256), {}}},
          {{"head size 200", dims(1, 35, 1, 1, 200), {}}},
          {{"first head inside a group", dims(1, 21, 4, 2, 16, 3, 2), {}}, Layout::fused},
          {{"a group cut on both sides", dims(2, 40, 2, 1, 32, 4, 1), {}}},
          {{"a key-value head that no query reads", dims(1, 34, 2, 3, 16, 2), {}}},
          {{"documents", dims(2, 90, 2, 1, 16, 2), {3, 1, 1, 17, 40, 28}}, Layout::fused},
          {{"documents of one token", dims(1, 66, 1, 1, 16), std::vector<int32_t>(66, 1)}},
          {{"documents over tiles", dims(2, 200, 1, 1, 16), {90, 1, 70, 25}}},
          {{"window", dims(1, 150, 1, 1, 16, 1, 0, 13), {}}},
          {{"window of one", dims(1, 20, 1, 1, 16, 1, 0, 1), {}}},
          {{"window longer than the row", dims(1, 20, 1, 1, 16, 1, 0, 500), {}}},
          {{"window and documents", dims(2, 140, 1, 1, 24, 1, 0, 40), {100, 7, 20}}, Layout::fused}};
}

/// q, k and v, or their gradients, on both sides; and the CPU's in f64.
class Operands {
 public:
  Operands(TestDevice& device, const AttentionDims& d, DType dtype, Layout layout)
      : device_(device), d_(d), is_fused_(layout == Layout::fused) {
    const int64_t N = d.B * d.T, q = d.H * d.D, k = d.K * d.D;
    const auto add = [&](int64_t columns, int64_t gap) {
      tensors_.push_back(std::make_unique<TwinTensor>(device, Shape{N, columns}, dtype, gap));
      wide_.push_back(std::make_unique<OwnedTensor>(Shape{N, columns}, DType::f64));
    };
    if (is_fused_) {
      add(q + 2 * k, 8);
    } else {
      add(q, 0), add(k, 8), add(k, 0);
    }
  }
  void random(uint64_t seed) {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      tensors_[i]->random(seed + i);
      copy(device_.cpu(), tensors_[i]->cpu(), wide_[i]->view);
    }
  }
  Tensor gpu(size_t i) const {
    return part(
        i, [](const TwinTensor& x) { return x.gpu(); }, tensors_);
  }
  Tensor wide(size_t i) const {
    return part(
        i, [](const OwnedTensor& x) { return x.view; }, wide_);
  }
  /// The device's numbers against those of the CPU in f64.
  testing::AssertionResult agree(double count) {
    for (size_t i = 0; i < tensors_.size(); ++i)
      if (auto result = agrees(device_, *tensors_[i], wide_[i]->view, count); !result) return result;
    return testing::AssertionSuccess();
  }
  std::vector<double> values() {
    std::vector<double> all;
    for (const auto& tensor : tensors_) {
      const std::vector<double> some = tensor->values();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

  static testing::AssertionResult agrees(TestDevice& device, TwinTensor& x, Tensor wide, double count) {
    double largest = 0;
    for (double value : wide.span<double>()) largest = std::max(largest, std::fabs(value));
    copy(device.cpu(), wide, x.cpu());
    Closeness closeness = roundings(x.cpu().dtype, largest, count);
    // Where a query sees one key, gradients of scores are the difference of two equal sums of D products,
    // which in f32 is not quite 0.
    closeness.absolute += 1e-6;
    return x.agrees(closeness);
  }

 private:
  template <class View, class Some>
  Tensor part(size_t i, const View& view, const Some& some) const {
    if (!is_fused_) return view(*some[i]);
    const int64_t q = d_.H * d_.D, k = d_.K * d_.D;
    return view(*some[0]).column_range(i == 0 ? 0 : q + static_cast<int64_t>(i - 1) * k, i == 0 ? q : k);
  }
  TestDevice& device_;
  AttentionDims d_;
  bool is_fused_;
  std::vector<std::unique_ptr<TwinTensor>> tensors_;
  std::vector<std::unique_ptr<OwnedTensor>> wide_;
};

/// Who computes on the device where both could: our kernels, or the library (on a GPU with cuDNN).
enum class Maker { own, library };

std::vector<Maker> makers() {
  if (library_versions(DeviceKind::cuda).cudnn == 0) return {Maker::own};
  return {Maker::own, Maker::library};
}

LibraryOptions options_of(Maker maker) {
  LibraryOptions options;
  options.uses_own_attention = maker == Maker::own;
  options.is_deterministic = true;
  return options;
}

/// Everything of a case on both sides, forward and backward.
struct BothSides {
  BothSides(const KernelCase& c, DType dtype, Maker maker = Maker::own)
      : c(c),
        device(int64_t{64} << 20, options_of(maker)),
        starts(device, {N()}, DType::i32),
        inputs(device, c.what.dims, dtype, c.layout),
        gradients(device, c.what.dims, dtype, c.layout),
        out(device, {N(), H() * c.what.dims.D}, dtype, 8),
        dout(device, {N(), H() * c.what.dims.D}, dtype),
        lse(device, {B(), H(), T()}, DType::f32),
        delta(device, {B(), H(), T()}, DType::f32) {
    dims = c.what.dims;
    dims.has_documents = !c.what.document_lengths.empty();
    std::vector<int32_t> document_start = document_starts(c.what);
    if (!dims.has_documents) document_start.assign(document_start.size(), 0);
    starts.set(document_start);
    inputs.random(1);
    gradients.random(11);
    dout.random(21);
    copy(device.cpu(), dout.cpu(), wide_dout.view);
    lse.fill(NAN), delta.fill(NAN), out.fill(NAN);
  }
  void forward() {
    attention_forward(device.gpu(), dims, inputs.gpu(0), inputs.gpu(1), inputs.gpu(2), starts.gpu(),
                      out.gpu(), lse.gpu());
  }
  void backward() {
    attention_backward(device.gpu(), dims, inputs.gpu(0), inputs.gpu(1), inputs.gpu(2), starts.gpu(),
                       out.gpu(), lse.gpu(), dout.gpu(), delta.gpu(), gradients.gpu(0), gradients.gpu(1),
                       gradients.gpu(2));
  }
  void on_cpu() {
    attention_forward(device.cpu(), dims, inputs.wide(0), inputs.wide(1), inputs.wide(2), starts.cpu(),
                      wide_out.view, wide_lse.view);
    attention_backward(device.cpu(), dims, inputs.wide(0), inputs.wide(1), inputs.wide(2), starts.cpu(),
                       wide_out.view, wide_lse.view, wide_dout.view, wide_delta.view, gradients.wide(0),
                       gradients.wide(1), gradients.wide(2));
  }
  int64_t B() const { return c.what.dims.B; }
  int64_t T() const { return c.what.dims.T; }
  int64_t H() const { return c.what.dims.H; }
  int64_t N() const { return B() * T(); }

  const KernelCase& c;
  TestDevice device;
  AttentionDims dims;
  TwinTensor starts;
  Operands inputs, gradients;
  TwinTensor out, dout, lse, delta;
  OwnedTensor wide_out{{N(), H() * c.what.dims.D}, DType::f64},
      wide_dout{{N(), H() * c.what.dims.D}, DType::f64};
  OwnedTensor wide_lse{{B(), H(), T()}, DType::f64}, wide_delta{{B(), H(), T()}, DType::f64};
};

class AttentionTwins : public testing::TestWithParam<DType> {};

TEST_P(AttentionTwins, ForwardAndBackwardAgreeOverTilesGroupsMasksAndViews) {
  // Probabilities and gradients of scores are rounded to the dtype once more than in f64: a few roundings of
  // the largest entry. In f32 sums of up to 200 products err by more than one rounding.
  const double count = GetParam() == DType::f32 ? 16 : 2;
  for (const Maker maker : makers()) {
    for (const KernelCase& c : kernel_cases()) {
      SCOPED_TRACE(c.what.name + (maker == Maker::own ? "" : ", by the library"));
      BothSides run(c, GetParam(), maker);
      run.forward();
      run.backward();
      run.on_cpu();
      TestDevice& device = run.device;
      EXPECT_TRUE(Operands::agrees(device, run.out, run.wide_out.view, count));
      EXPECT_TRUE(Operands::agrees(device, run.lse, run.wide_lse.view, 16));
      EXPECT_TRUE(run.gradients.agree(count));
    }
  }
}

TEST_P(AttentionTwins, GiveTheSameBitsWhateverTheOrderOfThreads) {
  const KernelCase c = {{"", dims(1, 90, 2, 1, 32, 2), {50, 3}}, Layout::fused};
  for (const Maker maker : makers()) {
    std::vector<double> first;
    for (uint64_t time = 0; time < 3; ++time) {
      BothSides run(c, GetParam(), maker);
      shuffle_order(time);
      run.forward();
      run.backward();
      std::vector<double> all = run.gradients.values();
      for (TwinTensor* tensor : {&run.out, &run.lse, &run.delta})
        for (double value : tensor->values()) all.push_back(value);
      if (first.empty()) first = all;
      EXPECT_TRUE(same_bits(first, all));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, AttentionTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

TEST(AttentionTwins, RefuseAHeadLargerThanTheKernelsAreMadeFor) {
  const KernelCase c = {{"", dims(1, 4, 1, 1, 264), {}}};
  BothSides run(c, DType::bf16);
  EXPECT_THROW(run.forward(), Error);
}

}  // namespace
}  // namespace ptrain
