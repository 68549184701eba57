// Sums over ranks as a tree, against a tree of single numbers, level by level.
#include <gtest/gtest.h>

#include <bit>

#include "kernels/base/float16.h"
#include "parallel/comm/ordered_reduce.h"
#include "parallel/comm/recording_comm.h"
#include "tests/parallel/comm/sum_tree.h"
#include "tests/parallel/comm/values.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

constexpr int all_sizes[] = {1, 2, 3, 4, 5, 6, 7, 8};

std::vector<int> tree_sizes() {
  return world_sizes({std::begin(all_sizes), std::end(all_sizes)});
}

/// 16-bit floats by their bits: their values as f32, and what is kept of a sum.
template <class T>
struct Kept {
  using Wide = T;
  using Stored = T;
  static constexpr DType dtype = dtype_of<T>;
  static Stored of(Wide x) { return x; }
  static Wide wide(Stored x) { return x; }
};
template <>
struct Kept<BFloat16> {
  using Wide = float;
  using Stored = uint16_t;
  static constexpr DType dtype = DType::bf16;
  static Stored of(Wide x) { return std::bit_cast<uint16_t>(to_bfloat16(x)); }
  static Wide wide(Stored x) { return widen(std::bit_cast<BFloat16>(x)); }
};
template <>
struct Kept<Float16> {
  using Wide = float;
  using Stored = uint16_t;
  static constexpr DType dtype = DType::f16;
  static Stored of(Wide x) { return std::bit_cast<uint16_t>(to_float16(x / 64)); }  // inside f16's range
  static Wide wide(Stored x) { return widen(std::bit_cast<Float16>(x)); }
  static Stored rounded(Wide x) { return std::bit_cast<uint16_t>(to_float16(x)); }
};

template <class T>
auto rounded(typename Kept<T>::Wide x) {
  if constexpr (std::is_same_v<T, Float16>) {
    return Kept<T>::rounded(x);
  } else {
    return Kept<T>::of(x);
  }
}

template <class T>
auto stored_values(int rank, int64_t count) {
  std::vector<typename Kept<T>::Stored> stored;
  for (const auto x : values_of<typename Kept<T>::Wide>(rank, count)) stored.push_back(Kept<T>::of(x));
  return stored;
}

template <class T>
auto tree_over_ranks(int ranks, int64_t count) {
  using Wide = typename Kept<T>::Wide;
  std::vector<std::vector<Wide>> addends;
  for (int rank = 0; rank < ranks; ++rank) {
    addends.emplace_back();
    for (const auto x : stored_values<T>(rank, count)) addends.back().push_back(Kept<T>::wide(x));
  }
  std::vector<typename Kept<T>::Stored> sum;
  for (const Wide x : sum_tree(std::move(addends))) sum.push_back(rounded<T>(x));
  return sum;
}

template <class T>
class SumTree : public testing::Test {};
using FloatTypes = testing::Types<float, double, BFloat16, Float16>;
TYPED_TEST_SUITE(SumTree, FloatTypes);

/// More than a chunk of messages, for one type.
template <class T>
constexpr int64_t longest = std::is_same_v<T, float> ? 170'003 : 9'001;

TYPED_TEST(SumTree, OfAnAllReduceIsTheTreeBitForBit) {
  using Stored = typename Kept<TypeParam>::Stored;
  for (const int ranks : tree_sizes()) {
    // Nothing, one, odd ones around a block of the arithmetic, and more than one round of messages.
    for (const int64_t count :
         {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{1023}, int64_t{1025}, longest<TypeParam>}) {
      const std::vector<Stored> expected = tree_over_ranks<TypeParam>(ranks, count);
      run_ranks(ranks, [&](Communicator& comm) {
        std::vector<Stored> values = stored_values<TypeParam>(comm.rank(), count);
        comm.all_reduce(Tensor(values.data(), {count}, Kept<TypeParam>::dtype), Reduce::sum, SumOrder::tree);
        EXPECT_TRUE(same_bits(values, expected)) << ranks << " ranks, " << count << " elements";
      });
    }
  }
}

TYPED_TEST(SumTree, OfAReduceScatterIsTheTreeWaitedForOrStartedOrInItsPlace) {
  using Stored = typename Kept<TypeParam>::Stored;
  constexpr DType dtype = Kept<TypeParam>::dtype;
  for (const int ranks : tree_sizes()) {
    for (const int64_t part : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{1025}, longest<TypeParam>}) {
      const int64_t count = part * ranks;
      const std::vector<Stored> sum = tree_over_ranks<TypeParam>(ranks, count);
      run_ranks(ranks, [&](Communicator& comm) {
        const int64_t begin = comm.rank() * part;
        const std::vector<Stored> expected(sum.begin() + begin, sum.begin() + begin + part);
        std::vector<Stored> whole = stored_values<TypeParam>(comm.rank(), count);
        const std::vector<Stored> before = whole;
        std::vector<Stored> mine(static_cast<size_t>(part)), started(mine);
        const Tensor all(whole.data(), {count}, dtype);
        comm.reduce_scatter(all, Tensor(mine.data(), {part}, dtype), SumOrder::tree);
        EXPECT_TRUE(same_bits(mine, expected)) << ranks << " ranks, " << part << " elements each";
        EXPECT_TRUE(same_bits(whole, before));
        comm.start_reduce_scatter(all, Tensor(started.data(), {part}, dtype), SumOrder::tree).wait();
        EXPECT_TRUE(same_bits(started, expected));
        comm.reduce_scatter(all, Tensor(whole.data() + begin, {part}, dtype), SumOrder::tree);
        EXPECT_TRUE(same_bits(std::vector(whole.begin() + begin, whole.begin() + begin + part), expected));
      });
    }
  }
}

TEST(SumTreeOverRanks, IsAnotherSumThanInRankOrderFromFourRanksOn) {
  for (const int ranks : all_sizes) {
    const bool is_same = same_bits(tree_over_ranks<float>(ranks, 1000), naive_sum<float>(ranks, 1000));
    EXPECT_EQ(is_same, ranks < 4) << ranks;
  }
}

TEST(SumTreeOverRanks, OfManySourcesIsTheTree) {
  for (const int ranks : {9, 15, 16, 17, 31, 33, 100}) {
    std::vector<std::vector<double>> addends;
    std::vector<const void*> sources;
    for (int rank = 0; rank < ranks; ++rank) addends.push_back(values_of<double>(rank, 1500));
    for (const std::vector<double>& addend : addends) sources.push_back(addend.data());
    std::vector<double> sum(1500);
    reduce_in_order(sources, sum.data(), 1500, DType::f64, Reduce::sum, SumOrder::tree);
    EXPECT_TRUE(same_bits(sum, sum_tree(addends))) << ranks;
  }
}

TEST(SumTreeOverRanks, ChangesNeitherExtremesNorIntegersNorTrafficNorScratch) {
  for (const int ranks : tree_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      constexpr int64_t count = 60'001;
      comm.reserve(all_reduce_scratch_bytes(ranks, count * 4));
      Traffic::Line first;
      std::vector<float> largest[2];
      std::vector<int32_t> sums[2];
      for (const SumOrder order : {SumOrder::ranks, SumOrder::tree}) {
        const Traffic::Line before = comm.traffic()[CommKind::all_reduce];
        const auto at = static_cast<size_t>(order);
        largest[at] = values_of<float>(comm.rank(), count);
        sums[at] = values_of<int32_t>(comm.rank(), count);
        comm.all_reduce(tensor_of(largest[at]), Reduce::max, order);
        comm.all_reduce(tensor_of(sums[at]), Reduce::sum, order);
        const Traffic::Line after = comm.traffic()[CommKind::all_reduce];
        const Traffic::Line sent{after.calls - before.calls, after.messages - before.messages,
                                 after.bytes - before.bytes};
        if (order == SumOrder::ranks) first = sent;
        EXPECT_EQ(sent, first);
      }
      EXPECT_TRUE(same_bits(largest[0], largest[1]));
      EXPECT_TRUE(same_bits(sums[0], sums[1]));
      EXPECT_EQ(comm.scratch_growths(), 0);
    });
  }
}

TEST(SumTreeOverRanks, IsPassedOnAndWrittenDownByARecorder) {
  for (const int ranks : world_sizes({4})) {
    run_ranks(ranks, [&](Communicator& comm) {
      RecordingCommunicator recorder(comm);
      std::vector<float> values = values_of<float>(comm.rank(), ranks), part(1), started(1);
      recorder.reduce_scatter(tensor_of(values), tensor_of(part), SumOrder::tree);
      recorder.start_reduce_scatter(tensor_of(values), tensor_of(started), SumOrder::tree).wait();
      recorder.all_reduce(tensor_of(values), Reduce::sum, SumOrder::tree);
      const std::vector<float> expected = tree_over_ranks<float>(ranks, ranks);
      EXPECT_TRUE(same_bits(values, expected));
      EXPECT_EQ(part[0], expected[static_cast<size_t>(comm.rank())]);
      EXPECT_EQ(started, part);
      std::vector<std::string> lines;
      for (const Call& call : recorder.calls()) lines.push_back(to_string(call));
      const std::string scatter = fmt::format("reduce_scatter {} f32 as a tree", ranks);
      EXPECT_EQ(lines, (std::vector{scatter, scatter, fmt::format("all_reduce {} f32 as a tree", ranks)}));
    });
  }
}

}  // namespace
}  // namespace ptrain
