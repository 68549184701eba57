// The embedding's kernels beside their CPU twins: ids outside the table, ids that occur once, often, and in
// more than one chunk of the sorted rows.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/rng.h"
#include "kernels/cuda/scratch.h"
#include "kernels/ops/embedding.h"
#include "tests/support/twins.h"

namespace ptrain {
namespace {

constexpr int64_t first_id = 100;

/// Ids around a table of V rows from first_id on: `padding` of them are one id, some others are not in it.
std::vector<int32_t> ids_of(int64_t N, int64_t V, double padding) {
  const Rng rng(static_cast<uint64_t>(N * 31 + V), 7);
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < N; ++n) {
    const auto i = static_cast<uint64_t>(n);
    const bool is_padding = rng.uniform(2 * i) < padding;
    const double place = is_padding ? 0.5 : rng.uniform(2 * i + 1) * 1.3 - 0.15;
    ids.push_back(static_cast<int32_t>(std::floor(place * static_cast<double>(V))) +
                  static_cast<int32_t>(first_id));
  }
  return ids;
}

class EmbeddingTwins : public testing::TestWithParam<DType> {};

TEST_P(EmbeddingTwins, ForwardCopiesRowsAndWritesZerosForOthers) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const auto& [N, V, C, gap] :
       {std::tuple{1, 1, 1, 0}, {9, 5, 7, 0}, {33, 20, 24, 8}, {20, 11, 13, 3}, {3, 4, 2056, 0}}) {
    TwinTensor ids(device, {N}, DType::i32), table(device, {V, C}, dtype), y(device, {N, C}, dtype, gap);
    ids.set(ids_of(N, V, 0.2)), table.random(1), y.fill(7);
    embedding_forward(device.cpu(), ids.cpu(), table.cpu(), first_id, y.cpu());
    embedding_forward(device.gpu(), ids.gpu(), table.gpu(), first_id, y.gpu());
    EXPECT_TRUE(y.same_bits()) << N << " of " << V << " rows, " << C << " columns";
    EXPECT_TRUE(table.same_bits());
  }
}

TEST_P(EmbeddingTwins, BackwardAddsTheRowsOfEachIdInWhateverOrderThreadsRun) {
  const DType dtype = GetParam();
  TestDevice device;
  for (const DType table_dtype : {dtype, DType::f32}) {
    for (const auto& [N, V, C, gap, padding] : {std::tuple{1, 1, 1, 0, 0.0},
                                                {63, 40, 8, 0, 0.0},
                                                {65, 3, 7, 0, 0.0},
                                                {128, 5, 24, 8, 1.0},
                                                {300, 50, 13, 3, 0.8},
                                                {1100, 700, 16, 0, 0.5},
                                                {90, 7, 1032, 0, 0.3}}) {
      TwinTensor ids(device, {N}, DType::i32), dy(device, {N, C}, dtype, gap),
          dtable(device, {V, C}, table_dtype);
      ids.set(ids_of(N, V, padding)), dy.random(1), dtable.random(2);
      embedding_backward(device.cpu(), ids.cpu(), dy.cpu(), first_id, dtable.cpu());
      shuffle_order(1);
      embedding_backward(device.gpu(), ids.gpu(), dy.gpu(), first_id, dtable.gpu());
      EXPECT_TRUE(dtable.agrees(rounded_once(table_dtype, static_cast<double>(N))))
          << N << " of " << V << " rows, " << C << " columns";
      const std::vector<double> first = dtable.values();
      dtable.random(2);
      shuffle_order(2);
      embedding_backward(device.gpu(), ids.gpu(), dy.gpu(), first_id, dtable.gpu());
      EXPECT_EQ(dtable.values(), first);
    }
  }
}

TEST_P(EmbeddingTwins, TheScratchThatIsBookedIsEnoughAndLessIsRefused) {
  for (const int64_t N : {1, 64, 65, 200}) {
    const int64_t booked = cuda::embedding_scratch_bytes({.N = N, .C = 7});
    for (const int64_t bytes : {booked, booked - 1}) {
      TestDevice device(bytes);
      TwinTensor ids(device, {N}, DType::i32), dy(device, {N, 7}, GetParam()),
          dtable(device, {9, 7}, DType::f32);
      ids.set(ids_of(N, 9, 0.6)), dy.random(1), dtable.random(2);
      if (bytes < booked) {
        EXPECT_THROW(embedding_backward(device.gpu(), ids.gpu(), dy.gpu(), first_id, dtable.gpu()), Error);
        continue;
      }
      embedding_backward(device.cpu(), ids.cpu(), dy.cpu(), first_id, dtable.cpu());
      embedding_backward(device.gpu(), ids.gpu(), dy.gpu(), first_id, dtable.gpu());
      EXPECT_TRUE(dtable.agrees(rounded_once(DType::f32, static_cast<double>(N)))) << N;
    }
  }
}

TEST_P(EmbeddingTwins, BackwardWithoutAnIdOfTheTableChangesNothing) {
  TestDevice device;
  TwinTensor ids(device, {70}, DType::i32), dy(device, {70, 8}, GetParam()),
      dtable(device, {6, 8}, GetParam());
  std::vector<int32_t> outside(70, -1);
  outside[3] = first_id - 1, outside[64] = first_id + 6, outside[69] = INT32_MAX;
  ids.set(outside), dy.random(1), dtable.random(2);
  embedding_backward(device.gpu(), ids.gpu(), dy.gpu(), first_id, dtable.gpu());
  EXPECT_TRUE(dtable.same_bits());
}

INSTANTIATE_TEST_SUITE_P(DTypes, EmbeddingTwins, testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace ptrain
