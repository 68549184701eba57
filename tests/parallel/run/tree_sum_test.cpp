#include "parallel/run/tree_sum.h"

#include <gtest/gtest.h>

#include "tests/parallel/comm/sum_tree.h"
#include "tests/parallel/comm/values.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// Levels of `elements` each, not a number before they are written.
template <class T>
class Levels {
 public:
  Levels(int levels, int64_t elements) {
    for (int l = 0; l < levels; ++l)
      memory_.emplace_back(static_cast<size_t>(elements), std::numeric_limits<T>::quiet_NaN());
  }
  std::vector<Tensor> views() {
    std::vector<Tensor> views;
    for (std::vector<T>& level : memory_) views.push_back(tensor_of(level));
    return views;
  }

 private:
  std::vector<std::vector<T>> memory_;
};

template <class T>
std::vector<T> plain_tree(int first, int addends, int64_t count) {
  std::vector<std::vector<T>> all;
  for (int i = 0; i < addends; ++i) all.push_back(values_of<T>(first + i, count));
  return sum_tree(std::move(all));
}

TEST(TreeSum, KeepsAsManyLevelsAsTheLastIndexHasDigits) {
  const int expected[] = {0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5};
  for (int addends = 1; addends <= 17; ++addends) {
    EXPECT_EQ(sum_tree_levels(addends), expected[addends - 1]);
    EXPECT_EQ(TreeSum(addends, {}).levels(), expected[addends - 1]);
  }
}

template <class T>
class TreeSums : public testing::Test {};
using WideTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(TreeSums, WideTypes);

TYPED_TEST(TreeSums, AreTheTreeForAnyNumberOfAddendsStepAfterStep) {
  using T = TypeParam;
  constexpr int64_t count = 20'011;  // more than a thread's share
  for (int addends = 1; addends <= 17; ++addends) {
    TreeSum tree(addends, {{0, count}});
    Levels<T> levels(tree.levels(), count);
    tree.bind(levels.views());
    Context context;
    context.threads = 2;
    for (int step = 0; step < 2; ++step) {
      std::vector<T> ready;
      for (int micro = 0; micro < addends; ++micro) {
        ready = values_of<T>(100 * step + micro, count);
        EXPECT_EQ(tree.add(context, 0, micro, tensor_of(ready)), micro + 1 == addends);
      }
      EXPECT_TRUE(same_bits(ready, plain_tree<T>(100 * step, addends, count)))
          << addends << ", step " << step;
    }
  }
}

TYPED_TEST(TreeSums, OfRegionsGoOnAtTheirOwnPace) {
  using T = TypeParam;
  constexpr int addends = 7;
  const std::vector<Range> regions = {{0, 5}, {9, 1033}, {5, 4}, {1042, 0}};
  constexpr int64_t elements = 1050;
  TreeSum tree(addends, regions);
  Levels<T> levels(tree.levels(), elements);
  tree.bind(levels.views());
  Context context;
  const int num_regions = static_cast<int>(regions.size());
  std::vector<std::vector<T>> sums(regions.size());
  // Region r is up to 2 * r addends behind region 0.
  for (int turn = 0; turn < addends + 2 * num_regions; ++turn) {
    for (int r = 0; r < num_regions; ++r) {
      const int micro = turn - 2 * r;
      if (micro < 0 || micro >= addends) continue;
      const Range region = regions[static_cast<size_t>(r)];
      const std::vector<T> all = values_of<T>(micro, elements);
      std::vector<T> ready(all.begin() + region.begin, all.begin() + region.end());
      if (tree.add(context, r, micro, tensor_of(ready))) sums[static_cast<size_t>(r)] = ready;
    }
  }
  const std::vector<T> expected = plain_tree<T>(0, addends, elements);
  for (size_t r = 0; r < regions.size(); ++r) {
    const Range region = regions[r];
    EXPECT_TRUE(
        same_bits(sums[r], std::vector(expected.begin() + region.begin, expected.begin() + region.end())));
  }
}

TYPED_TEST(TreeSums, GoOnOverTheRanksOfTheDataAxis) {
  using T = TypeParam;
  constexpr int64_t part = 331;
  for (const int data : world_sizes({1, 2, 3, 4, 5, 6, 7, 8})) {
    for (const int k : {1, 2, 4}) {
      const int64_t count = part * data;
      const std::vector<T> expected = plain_tree<T>(0, k * data, count);
      run_ranks(data, [&](Communicator& comm) {
        TreeSum tree(k, {{0, count}});
        Levels<T> levels(tree.levels(), count);
        tree.bind(levels.views());
        Context context;
        std::vector<T> ready, mine(static_cast<size_t>(part));
        for (int micro = 0; micro < k; ++micro) {
          ready = values_of<T>(comm.rank() * k + micro, count);
          tree.add(context, 0, micro, tensor_of(ready));
        }
        comm.start_reduce_scatter(tensor_of(ready), tensor_of(mine), SumOrder::tree).wait();
        const auto begin = expected.begin() + comm.rank() * part;
        EXPECT_TRUE(same_bits(mine, std::vector(begin, begin + part))) << data << " ranks, " << k << " each";
        comm.all_reduce(tensor_of(ready), Reduce::sum, SumOrder::tree);
        EXPECT_TRUE(same_bits(ready, expected)) << data << " ranks, " << k << " each";
      });
    }
  }
}

TEST(TreeSumErrors, AddendsOutOfTurnAndTensorsThatDoNotFitAreRefused) {
  TreeSum tree(3, {{0, 4}, {4, 4}});
  Levels<float> levels(2, 8), few(1, 8), narrow(2, 7);
  EXPECT_THROW(tree.bind(few.views()), Error);
  EXPECT_THROW(tree.bind(narrow.views()), Error);
  Context context;
  std::vector<float> four(4), five(5);
  EXPECT_THROW(tree.add(context, 0, 0, tensor_of(four)), Error);  // not bound yet
  tree.bind(levels.views());
  EXPECT_FALSE(tree.add(context, 0, 0, tensor_of(four)));
  EXPECT_THROW(tree.add(context, 0, 0, tensor_of(four)), Error);
  EXPECT_THROW(tree.add(context, 0, 2, tensor_of(four)), Error);
  EXPECT_THROW(tree.add(context, 0, 1, tensor_of(five)), Error);
  EXPECT_THROW(tree.add(context, 2, 0, tensor_of(four)), Error);
  EXPECT_FALSE(tree.add(context, 1, 0, tensor_of(four)));  // and the sum goes on
  EXPECT_FALSE(tree.add(context, 0, 1, tensor_of(four)));
  EXPECT_TRUE(tree.add(context, 0, 2, tensor_of(four)));
  EXPECT_THROW(TreeSum(0, {}), Error);
}

}  // namespace
}  // namespace ptrain
