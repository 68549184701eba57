// Embedding look-up and its gradient, over slices of a vocabulary.
#include "kernels/ops/embedding.h"

#include <gtest/gtest.h>

#include "tests/kernels/guarded.h"
#include "tests/support/close.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

template <class T>
class Embedding : public testing::Test {};
TYPED_TEST_SUITE(Embedding, Storages);

/// Ids 0..39, many of them more than once.
std::vector<int32_t> repeated_ids(int64_t N) {
  const Rng rng(3, 1);
  std::vector<int32_t> ids;
  for (int64_t n = 0; n < N; ++n)
    ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(n), 40)));
  return ids;
}

TYPED_TEST(Embedding, LooksUpRowsOfItsSliceAndGivesZerosElsewhere) {
  using T = TypeParam;
  for (int64_t first_id : {0, 13, 35}) {
    for (int64_t C : {1, 24, 577}) {
      constexpr int64_t N = 67, V = 21;
      Guarded<T> table(V, C, 2), y(N, C, 3);
      table.random(1);
      std::vector<int32_t> ids = repeated_ids(N);
      Context context = cpu_context(2);
      embedding_forward(context, ids_of(ids), table.view(), first_id, y.view());
      for (int64_t n = 0; n < N; ++n) {
        const int64_t row = ids[static_cast<size_t>(n)] - first_id;
        for (int64_t c = 0; c < C; ++c) ASSERT_EQ(y(n, c), row >= 0 && row < V ? table(row, c) : 0.0);
      }
      EXPECT_TRUE(y.intact());
    }
  }
}

TYPED_TEST(Embedding, BackwardAddsEveryRowToItsEntry) {
  using T = TypeParam;
  for (int64_t first_id : {0, 13, 35}) {
    for (int64_t C : {1, 24, 577}) {
      constexpr int64_t N = 67, V = 21;
      Guarded<T> dtable(V, C, 2), dy(N, C, 3);
      dtable.random(1), dy.random(2);
      std::vector<int32_t> ids = repeated_ids(N);
      std::vector<double> expected = dtable.values();
      for (int64_t n = 0; n < N; ++n) {
        const int64_t row = ids[static_cast<size_t>(n)] - first_id;
        if (row < 0 || row >= V) continue;
        for (int64_t c = 0; c < C; ++c) expected[static_cast<size_t>(row * C + c)] += dy(n, c);
      }
      Context context = cpu_context(2);
      embedding_backward(context, ids_of(ids), dy.view(), first_id, dtable.view());
      EXPECT_TRUE(close(dtable.values(), expected, tolerance::elementwise<T>));
      EXPECT_TRUE(dtable.intact());
    }
  }
}

template <class T>
class EmbeddingNarrow : public testing::Test {};
TYPED_TEST_SUITE(EmbeddingNarrow, NarrowStorages);

TYPED_TEST(EmbeddingNarrow, AWideTableKeepsWhatSixteenBitsLose) {
  using T = TypeParam;
  // 3000 times the same id: a 16-bit sum that was rounded at every addition would stop growing.
  constexpr int64_t N = 3000, C = 300;
  Guarded<T> dy(N, C, 3), narrow(2, C);
  Guarded<float> wide(2, C, 1);
  dy.fill(0.0625), narrow.fill(0), wide.fill(0);
  std::vector<int32_t> ids(N, 8);
  Context context = cpu_context(2);
  embedding_backward(context, ids_of(ids), dy.view(), 7, narrow.view());
  embedding_backward(context, ids_of(ids), dy.view(), 7, wide.view());
  for (int64_t c = 0; c < C; ++c) {
    ASSERT_EQ(narrow(0, c), 0);
    ASSERT_EQ(narrow(1, c), rounded<T>(3000 * 0.0625));
    ASSERT_EQ(wide(1, c), 3000 * 0.0625);
  }
  EXPECT_TRUE(narrow.intact() && wide.intact());
}

TYPED_TEST(EmbeddingNarrow, SaysHowMuchScratchItNeeds) {
  Guarded<TypeParam> dy(5, 3), dtable(2, 3);
  std::vector<int32_t> ids(5);
  Context context;
  EXPECT_THROW(embedding_backward(context, ids_of(ids), dy.view(), 0, dtable.view()), Error);
}

TYPED_TEST(Embedding, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  Guarded<T> dy(500, 97);
  dy.random(1);
  std::vector<int32_t> ids = repeated_ids(500);
  std::vector<double> first;
  for (int threads : {1, 2, 3}) {
    Guarded<T> dtable(40, 97);
    dtable.fill(0);
    Context context = cpu_context(threads);
    embedding_backward(context, ids_of(ids), dy.view(), 0, dtable.view());
    if (threads == 1) first = dtable.values();
    EXPECT_TRUE(same_bits(first, dtable.values()));
  }
}

}  // namespace
}  // namespace ptrain
