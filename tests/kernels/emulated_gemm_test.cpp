// Linear layers of a GPU beside their CPU twins: how rows become a library's columns, and where that writes.
#include "kernels/ops/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/cuda/algorithm_cache.h"
#include "kernels/cuda/gemm_key.h"
#include "kernels/cuda/scratch.h"
#include "kernels/ops/quantize.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

struct Case {
  int64_t N, C, O, gap;
};
const Case cases[] = {{1, 1, 1, 0}, {1, 24, 7, 0}, {5, 3, 16, 0}, {7, 24, 13, 3}, {33, 40, 65, 8}};

/// Sums of `length` products of numbers of size 1, in any order, and one rounding to the dtype.
Closeness sum_of(DType dtype, int64_t length) {
  const double size = std::sqrt(static_cast<double>(length));
  Closeness closeness = roundings(dtype, size, 2);
  closeness.absolute += roundings(DType::f32, size, 8 * size).absolute;
  return closeness;
}

class GemmTwins : public testing::TestWithParam<DType> {};

TEST_P(GemmTwins, ForwardAgreesWithAndWithoutBiasAndSum) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Case& c : cases) {
    TwinTensor x(device, {c.N, c.C}, dtype, c.gap), w(device, {c.O, c.C}, dtype), bias(device, {c.O}, dtype);
    x.random(1), w.random(2), bias.random(3);
    for (Write write : {Write::overwrite, Write::accumulate}) {
      for (bool has_bias : {false, true}) {
        TwinTensor y(device, {c.N, c.O}, dtype, c.gap);
        y.random(4);
        linear_forward(device.cpu(), x.cpu(), w.cpu(), has_bias ? bias.cpu() : Tensor{}, y.cpu(), write);
        linear_forward(device.gpu(), x.gpu(), w.gpu(), has_bias ? bias.gpu() : Tensor{}, y.gpu(), write);
        EXPECT_TRUE(y.agrees(sum_of(dtype, c.C))) << c.N << " " << c.C << " " << c.O;
      }
    }
    EXPECT_TRUE(x.same_bits() && w.same_bits() && bias.same_bits());
  }
}

TEST_P(GemmTwins, BackwardOfTheInputAgrees) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Case& c : cases) {
    TwinTensor dy(device, {c.N, c.O}, dtype, c.gap), w(device, {c.O, c.C}, dtype);
    dy.random(1), w.random(2);
    for (Write write : {Write::overwrite, Write::accumulate}) {
      TwinTensor dx(device, {c.N, c.C}, dtype, c.gap);
      dx.random(4);
      linear_backward_input(device.cpu(), dy.cpu(), w.cpu(), dx.cpu(), write);
      linear_backward_input(device.gpu(), dy.gpu(), w.gpu(), dx.gpu(), write);
      EXPECT_TRUE(dx.agrees(sum_of(dtype, c.O))) << c.N << " " << c.C << " " << c.O;
    }
    EXPECT_TRUE(dy.same_bits() && w.same_bits());
  }
}

TEST_P(GemmTwins, BackwardOfTheWeightAgreesAlsoIntoAWiderGradient) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const Case& c : cases) {
    TwinTensor dy(device, {c.N, c.O}, dtype, c.gap), x(device, {c.N, c.C}, dtype, c.gap);
    dy.random(1), x.random(2);
    for (DType gradient : {dtype, DType::f32}) {
      for (Write write : {Write::overwrite, Write::accumulate}) {
        TwinTensor dw(device, {c.O, c.C}, gradient);
        dw.random(4);
        linear_backward_weight(device.cpu(), dy.cpu(), x.cpu(), dw.cpu(), write);
        linear_backward_weight(device.gpu(), dy.gpu(), x.gpu(), dw.gpu(), write);
        EXPECT_TRUE(dw.agrees(sum_of(gradient, c.N))) << c.N << " " << c.C << " " << c.O;
      }
    }
    EXPECT_TRUE(dy.same_bits() && x.same_bits());
  }
}

TEST_P(GemmTwins, NoRowsChangeNothing) {
  TestDevice device;
  TwinTensor x(device, {0, 8}, GetParam()), w(device, {4, 8}, GetParam()), dy(device, {0, 4}, GetParam());
  w.random(1);
  linear_forward(device.gpu(), x.gpu(), w.gpu(), {}, dy.gpu());
  linear_backward_weight(device.gpu(), dy.gpu(), x.gpu(), w.gpu());
  EXPECT_TRUE(w.same_bits());
}

INSTANTIATE_TEST_SUITE_P(DTypes, GemmTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

/// 8-bit operands of small whole numbers, which both formats hold exactly.
class Operands {
 public:
  Operands(TestDevice& device, int64_t rows, int64_t columns, DType format, uint64_t seed, double scale)
      : values(static_cast<size_t>(rows * columns)),
        numbers(device, {rows, columns}, DType::f32),
        bytes(device, {rows, columns}, DType::u8),
        one(device, {1}, DType::f32),
        scale(device, {1}, DType::f32),
        format_(format) {
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<double>((i * 7 + seed * 11 + i * i % 5) % 17) - 8;
    numbers.set(values), one.fill(1), this->scale.fill(scale);
    quantize(device.gpu(), numbers.gpu(), one.gpu(), gpu(), {});
  }
  Tensor gpu() const {
    Tensor x = bytes.gpu();
    x.dtype = format_;
    return x;
  }

  std::vector<double> values;
  TwinTensor numbers, bytes, one, scale;

 private:
  DType format_;
};

constexpr int64_t enough_scratch = cuda::gemm_workspace_bytes + 4096;

TEST(QuantizedGemmTwins, IsTheProductOverBothScales) {
  TestDevice device(enough_scratch);
  constexpr DType e4m3 = DType::f8_e4m3, e5m2 = DType::f8_e5m2;
  for (const auto& [a_format, b_format] :
       {std::pair{e4m3, e4m3}, std::pair{e5m2, e4m3}, std::pair{e4m3, e5m2}}) {
    for (const auto& [N, C, O] : {std::tuple{1, 16, 16}, std::tuple{7, 32, 48}, std::tuple{33, 80, 16}}) {
      const Operands a(device, N, C, a_format, 1, 2), b(device, O, C, b_format, 2, 4);
      for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        for (Write write : {Write::overwrite, Write::accumulate}) {
          TwinTensor y(device, {N, O}, dtype, 16);
          y.fill(3);
          linear_quantized(device.gpu(), a.gpu(), a.scale.gpu(), b.gpu(), b.scale.gpu(), y.gpu(), write);
          std::vector<double> expected, sizes;
          for (int64_t n = 0; n < N; ++n) {
            for (int64_t o = 0; o < O; ++o) {
              double sum = 0, size = 0;
              for (int64_t k = 0; k < C; ++k) {
                const double product =
                    a.values[static_cast<size_t>(n * C + k)] * b.values[static_cast<size_t>(o * C + k)];
                sum += product, size += std::fabs(product);
              }
              sizes.push_back(size / 8);
              expected.push_back(sum / 8 + (write == Write::accumulate ? 3 : 0));
            }
          }
          const std::vector<double> got = y.values();
          const double rounding = dtype == DType::f32 ? 0 : dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
          // A GPU may keep sums of two E4M3 operands in some 13 bits.
          const double of_sums = a_format == b_format ? 0x1p-11 : 0;
          for (size_t i = 0; i < got.size(); ++i)
            EXPECT_NEAR(got[i], expected[i], rounding * std::fabs(expected[i]) + of_sums * sizes[i]) << i;
        }
      }
    }
  }
}

TEST(QuantizedGemmTwins, WhatTheHardwareCannotDoIsRefused) {
  TestDevice device(enough_scratch);
  TwinTensor y(device, {16, 16}, DType::f32), y_odd(device, {16, 24}, DType::f32);
  const Operands a(device, 16, 16, DType::f8_e5m2, 1, 1), b(device, 16, 16, DType::f8_e5m2, 2, 1);
  const Operands narrow(device, 16, 24, DType::f8_e4m3, 3, 1), wide(device, 24, 16, DType::f8_e4m3, 3, 1);
  const auto refusal = [&](const Operands& x, const Operands& w, TwinTensor& out) -> std::string {
    try {
      linear_quantized(device.gpu(), x.gpu(), x.scale.gpu(), w.gpu(), w.scale.gpu(), out.gpu(),
                       Write::overwrite);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal(a, b, y).find("one of them must be f8_e4m3"), std::string::npos);
  EXPECT_NE(refusal(narrow, narrow, y).find("the width of a is 24"), std::string::npos);
  EXPECT_NE(refusal(a, wide, y_odd).find("the number of outputs is 24"), std::string::npos);
}

TEST(GemmKey, EveryPartShowsInItsTextAndTheCacheTakesIt) {
  using cuda::GemmKey;
  std::vector<GemmKey> keys(1);
  const auto changed = [&](auto change) {
    GemmKey key;
    change(key);
    keys.push_back(key);
  };
  changed([](GemmKey& key) { key.a = DType::f8_e4m3; });
  changed([](GemmKey& key) { key.b = DType::bf16; });
  changed([](GemmKey& key) { key.c = DType::f16; });
  changed([](GemmKey& key) { key.is_a_transposed = true; });
  changed([](GemmKey& key) { key.is_b_transposed = true; });
  for (int64_t GemmKey::*part :
       {&GemmKey::m, &GemmKey::n, &GemmKey::k, &GemmKey::a_stride, &GemmKey::b_stride, &GemmKey::c_stride,
        &GemmKey::a_alignment, &GemmKey::b_alignment, &GemmKey::c_alignment}) {
    changed([&](GemmKey& key) { key.*part = 12; });
  }
  changed([](GemmKey& key) { key.has_bias = true; });
  changed([](GemmKey& key) { key.accumulates = true; });
  std::set<std::string> texts;
  cuda::AlgorithmCache cache({.gpu = "GPU", .library_version = 1});
  for (const GemmKey& key : keys) {
    texts.insert(text_of(key));
    cache.put(text_of(key), {});
  }
  EXPECT_EQ(texts.size(), keys.size());
  EXPECT_EQ(cache.size(), keys.size());
}

TEST(GemmKey, AlignmentIsThePowerOfTwoOfAnAddress) {
  for (const auto& [address, alignment] :
       {std::pair<uintptr_t, int64_t>{256, 256}, {4096, 256}, {4096 + 128, 128}, {48, 16}, {2, 2}, {7, 1}})
    EXPECT_EQ(cuda::alignment_of(reinterpret_cast<const void*>(address)), alignment);
}

}  // namespace
}  // namespace ptrain
