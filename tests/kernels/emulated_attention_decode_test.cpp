// The decode kernels beside their CPU twin, which computes in f64 from the same rounded operands.
#include <gtest/gtest.h>

#include "kernels/cuda/scratch.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "tests/support/close.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

struct DecodeCase {
  const char* name;
  int64_t H, K, D, group, first_head, window;
  int64_t P;                     // room in the cache
  std::vector<int32_t> lengths;  // of the sequences
};

const DecodeCase decode_cases[] = {
    {"one position", 1, 1, 16, 1, 0, 0, 1, {1}},
    {"lengths of every kind", 2, 2, 64, 1, 0, 0, 300, {1, 7, 63, 64, 65, 130, 299, 300}},
    {"groups of two", 4, 2, 80, 2, 0, 0, 140, {3, 139}},
    {"groups of three from inside one", 4, 2, 128, 3, 2, 0, 70, {70, 41}},
    {"a group cut on both sides", 2, 1, 96, 8, 3, 0, 40, {33}},
    {"more heads a group than a block takes", 11, 1, 32, 11, 0, 0, 90, {88, 2}},
    {"a window", 2, 2, 16, 1, 0, 50, 400, {20, 50, 51, 390}},
    {"a head size that vectors do not fit", 2, 1, 13, 2, 0, 0, 33, {33, 9}},
    {"the largest head size", 2, 1, 256, 2, 0, 0, 150, {149}},
};

class DecodeTwins : public testing::TestWithParam<DType> {};

/// What one call leaves, on the device and, in f64, on the CPU.
struct DecodeRun {
  DecodeRun(const DecodeCase& c, DType dtype)
      : B(static_cast<int64_t>(c.lengths.size())),
        // No more than the plan books.
        device(cuda::attention_scratch_bytes({.B = B, .H = c.H, .K = c.K, .D = c.D})),
        q(device, {B, c.H * c.D}, dtype, 8),
        keys(device, {B, c.P, c.K * c.D}, dtype),
        values(device, {B, c.P, c.K * c.D}, dtype, 8),
        lengths(device, {B}, DType::i32),
        out(device, {B, c.H * c.D}, dtype, 8),
        wide_out({B, c.H * c.D}, DType::f64) {
    q.random(1), keys.random(2), values.random(3), lengths.set(c.lengths);
    AttentionDims dims{.B = B, .H = c.H, .K = c.K, .D = c.D};
    dims.group = c.group, dims.first_head = c.first_head, dims.window = c.window;
    dims.scale = 1 / std::sqrt(static_cast<double>(c.D));
    attention_decode(device.gpu(), dims, q.gpu(), keys.gpu(), values.gpu(), lengths.gpu(), out.gpu());
    attention_decode(device.cpu(), dims, wide(q).view, wide(keys).view, wide(values).view, lengths.cpu(),
                     wide_out.view);
    copy(device.cpu(), wide_out.view, out.cpu());
  }

  int64_t B;
  TestDevice device;
  TwinTensor q, keys, values, lengths, out;
  OwnedTensor wide_out;

 private:
  OwnedTensor wide(const TwinTensor& x) {
    OwnedTensor result(x.cpu().shape, DType::f64);
    copy(device.cpu(), x.cpu(), result.view);
    return result;
  }
};

TEST_P(DecodeTwins, AgreeOverLengthsGroupsAndWindows) {
  for (const DecodeCase& c : decode_cases) {
    DecodeRun run(c, GetParam());
    EXPECT_TRUE(run.out.agrees(roundings(GetParam(), 1, GetParam() == DType::f32 ? 16 : 1))) << c.name;
  }
}

TEST_P(DecodeTwins, GiveTheSameBitsWhateverTheOrderOfThreads) {
  shuffle_order(1);
  const std::vector<double> first = DecodeRun(decode_cases[1], GetParam()).out.values();
  shuffle_order(2);
  EXPECT_TRUE(same_bits(first, DecodeRun(decode_cases[1], GetParam()).out.values()));
}

INSTANTIATE_TEST_SUITE_P(DTypes, DecodeTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

TEST(DecodeTwins, RefuseScratchThatIsTooSmall) {
  TestDevice device(64);
  TwinTensor q(device, {1, 16}, DType::f32), cache(device, {1, 9, 16}, DType::f32),
      out(device, {1, 16}, DType::f32), lengths(device, {1}, DType::i32);
  const AttentionDims dims{.B = 1, .H = 1, .K = 1, .D = 16};
  EXPECT_THROW(
      attention_decode(device.gpu(), dims, q.gpu(), cache.gpu(), cache.gpu(), lengths.gpu(), out.gpu()),
      Error);
}

}  // namespace
}  // namespace ptrain
