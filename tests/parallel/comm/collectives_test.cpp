// Every collective against what one rank computes alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/base/float16.h"
#include "parallel/comm/ordered_reduce.h"
#include "parallel/plan/sent.h"
#include "tests/parallel/comm/values.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

// Nothing, one element, odd ones, around the sizes where the algorithm changes, and one message above MPI's
// eager limit even after it was cut in eight parts (2,400,017 floats).
constexpr int64_t sizes[] = {0, 1, 7, 4096, 4097, 16385, 100'003, 1'000'003, 2'400'017};

template <class T>
class Collectives : public testing::Test {};
using AllTypes = testing::Types<float, double, int32_t, int64_t, uint8_t>;
TYPED_TEST_SUITE(Collectives, AllTypes);

template <class T>
class Reductions : public testing::Test {};
using NumberTypes = testing::Types<float, double, int32_t, int64_t>;
TYPED_TEST_SUITE(Reductions, NumberTypes);

template <class T>
std::vector<int64_t> sizes_for() {
  std::vector<int64_t> chosen(std::begin(sizes), std::end(sizes));
  if (!std::is_same_v<T, float>) chosen.resize(chosen.size() - 2);  // the longest once
  return chosen;
}

template <class T>
std::vector<T> slice(const std::vector<T>& values, int64_t begin, int64_t count) {
  return {values.begin() + begin, values.begin() + begin + count};
}

TYPED_TEST(Reductions, AllReduceIsTheSumInRankOrderBitForBit) {
  using T = TypeParam;
  for (const int ranks : world_sizes()) {
    for (const int64_t count : sizes_for<T>()) {
      const std::vector<T> expected = naive_sum<T>(ranks, count);
      run_ranks(ranks, [&](Communicator& comm) {
        std::vector<T> values = values_of<T>(comm.rank(), count);
        comm.all_reduce(tensor_of(values));
        EXPECT_TRUE(same_bits(values, expected)) << ranks << " ranks, " << count << " elements";
      });
    }
  }
}

TYPED_TEST(Reductions, ReduceScatterGivesEachRankItsPartOfTheSumAndLeavesTheRest) {
  using T = TypeParam;
  for (const int ranks : world_sizes()) {
    for (const int64_t part : {0, 1, 7, 4099, 300'007}) {
      const int64_t count = part * ranks;
      const std::vector<T> expected = naive_sum<T>(ranks, count);
      run_ranks(ranks, [&](Communicator& comm) {
        std::vector<T> whole = values_of<T>(comm.rank(), count);
        const std::vector<T> before = whole;
        std::vector<T> mine(static_cast<size_t>(part));
        comm.reduce_scatter(tensor_of(whole), tensor_of(mine));
        EXPECT_TRUE(same_bits(mine, slice(expected, comm.rank() * part, part)));
        EXPECT_TRUE(same_bits(whole, before));

        const Tensor place(whole.data() + comm.rank() * part, {part}, dtype_of<T>);
        comm.reduce_scatter(tensor_of(whole), place);
        std::vector<T> only_mine = before;
        std::copy(mine.begin(), mine.end(), only_mine.begin() + comm.rank() * part);
        EXPECT_TRUE(same_bits(whole, only_mine));
      });
    }
  }
}

TYPED_TEST(Collectives, AllReduceFindsTheLargestAndTheSmallest) {
  using T = TypeParam;
  for (const int ranks : world_sizes()) {
    for (const int64_t count : {1, 7, 50'021}) {
      run_ranks(ranks, [&](Communicator& comm) {
        std::vector<T> largest = values_of<T>(comm.rank(), count);
        std::vector<T> smallest = largest;
        comm.all_reduce(tensor_of(largest), Reduce::max);
        comm.all_reduce(tensor_of(smallest), Reduce::min);
        for (int64_t i = 0; i < count; ++i) {
          T high = value_at<T>(0, i);
          T low = high;
          for (int rank = 1; rank < ranks; ++rank) {
            high = std::max(high, value_at<T>(rank, i));
            low = std::min(low, value_at<T>(rank, i));
          }
          ASSERT_EQ(largest[static_cast<size_t>(i)], high) << i;
          ASSERT_EQ(smallest[static_cast<size_t>(i)], low) << i;
        }
      });
    }
  }
}

TYPED_TEST(Collectives, AllGatherPutsThePartsInRankOrder) {
  using T = TypeParam;
  for (const int ranks : world_sizes()) {
    for (const int64_t part : {0, 1, 7, 150'001}) {
      run_ranks(ranks, [&](Communicator& comm) {
        std::vector<T> expected;
        for (int rank = 0; rank < ranks; ++rank) {
          const std::vector<T> theirs = values_of<T>(rank, part);
          expected.insert(expected.end(), theirs.begin(), theirs.end());
        }
        std::vector<T> mine = values_of<T>(comm.rank(), part);
        std::vector<T> whole(static_cast<size_t>(part * ranks));
        comm.all_gather(tensor_of(mine), tensor_of(whole));
        EXPECT_TRUE(same_bits(whole, expected));

        std::vector<T> in_place(static_cast<size_t>(part * ranks));
        std::copy(mine.begin(), mine.end(), in_place.begin() + comm.rank() * part);
        comm.all_gather(Tensor(in_place.data() + comm.rank() * part, {part}, dtype_of<T>),
                        tensor_of(in_place));
        EXPECT_TRUE(same_bits(in_place, expected));
      });
    }
  }
}

TYPED_TEST(Collectives, AllGatherTakesPartsOfAnyLength) {
  using T = TypeParam;
  for (const int ranks : world_sizes()) {
    for (const int64_t unit : {1, 5003}) {
      run_ranks(ranks, [&](Communicator& comm) {
        std::vector<int64_t> counts;  // 0, 1, 4, 9, … units: rank 0 has nothing
        std::vector<T> expected;
        for (int rank = 0; rank < ranks; ++rank) {
          counts.push_back(int64_t{rank} * rank * unit);
          const std::vector<T> theirs = values_of<T>(rank, counts.back());
          expected.insert(expected.end(), theirs.begin(), theirs.end());
        }
        std::vector<T> mine = values_of<T>(comm.rank(), counts[static_cast<size_t>(comm.rank())]);
        std::vector<T> whole(expected.size());
        comm.all_gather_varied(tensor_of(mine), tensor_of(whole), counts);
        EXPECT_TRUE(same_bits(whole, expected));
      });
    }
  }
}

TYPED_TEST(Collectives, BroadcastSpreadsTheRootsTensorFromEveryRoot) {
  using T = TypeParam;
  for (const int ranks : world_sizes()) {
    for (const int64_t count : {0, 1, 7, 200'003}) {
      run_ranks(ranks, [&](Communicator& comm) {
        for (int root = 0; root < ranks; ++root) {
          std::vector<T> values = values_of<T>(comm.rank(), count);
          comm.broadcast(tensor_of(values), root);
          EXPECT_TRUE(same_bits(values, values_of<T>(root, count))) << "root " << root;
        }
      });
    }
  }
}

TYPED_TEST(Collectives, AllToAllSendsEachPieceToItsRank) {
  using T = TypeParam;
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      // From rank a to rank b go a * 1009 + b elements, the values of rank a * ranks + b.
      const auto count_of = [](int from, int to) { return int64_t{from} * 1009 + to; };
      std::vector<int64_t> send_counts;
      std::vector<int64_t> receive_counts;
      std::vector<T> sent;
      std::vector<T> expected;
      for (int peer = 0; peer < ranks; ++peer) {
        send_counts.push_back(count_of(comm.rank(), peer));
        receive_counts.push_back(count_of(peer, comm.rank()));
        const std::vector<T> out = values_of<T>(comm.rank() * ranks + peer, send_counts.back());
        const std::vector<T> in = values_of<T>(peer * ranks + comm.rank(), receive_counts.back());
        sent.insert(sent.end(), out.begin(), out.end());
        expected.insert(expected.end(), in.begin(), in.end());
      }
      std::vector<T> received(expected.size());
      comm.all_to_all_varied(tensor_of(sent), send_counts, tensor_of(received), receive_counts);
      EXPECT_TRUE(same_bits(received, expected));
    });
  }
}

TEST(CollectivesOfAnyType, MaxAndMinDoNotHideANan) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const int ranks : world_sizes()) {
    for (int bad = 0; bad < ranks; ++bad) {
      run_ranks(ranks, [&](Communicator& comm) {
        std::vector<double> high = {comm.rank() == bad ? nan : 1.0};
        std::vector<double> low = high;
        comm.all_reduce(tensor_of(high), Reduce::max);
        comm.all_reduce(tensor_of(low), Reduce::min);
        EXPECT_TRUE(std::isnan(high[0]) && std::isnan(low[0]));
      });
    }
  }
}

TEST(CollectivesOfAnyType, AnotherOrderOfTheSumWouldShow) {
  // The test values are worth something: adding from the last rank down gives other bits.
  std::vector<float> up = naive_sum<float>(4, 1000);
  std::vector<float> down = values_of<float>(3, 1000);
  for (int rank = 2; rank >= 0; --rank) {
    for (int64_t i = 0; i < 1000; ++i) down[static_cast<size_t>(i)] += value_at<float>(rank, i);
  }
  EXPECT_FALSE(same_bits(up, down));
}

TEST(CollectivesOfAnyType, BarrierLetsNobodyGoBeforeTheLastHasCome) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      // Each rank says that it has come before it enters; the control lane is read after the barrier without
      // waiting for anybody.
      std::vector<int32_t> said = {1};
      std::vector<int32_t> heard(static_cast<size_t>(ranks), 0);
      std::vector<Transfer> transfers;
      for (int peer = 0; peer < ranks; ++peer) {
        transfers.push_back(
            comm.irecv(Tensor(&heard[static_cast<size_t>(peer)], {1}, DType::i32), peer, Lane::control));
        transfers.push_back(comm.isend(tensor_of(said), peer, Lane::control));
      }
      comm.barrier();
      for (Transfer& transfer : transfers) transfer.wait();
      EXPECT_EQ(std::accumulate(heard.begin(), heard.end(), 0), ranks);
    });
  }
}

TEST(CollectivesOfAnyType, TensorsThatDoNotFitTheCallAreRefusedOnEveryRank) {
  for (const int ranks : world_sizes({2, 3})) {
    if (ranks < 2) continue;  // one rank's part is the whole
    run_ranks(ranks, [&](Communicator& comm) {
      std::vector<float> five(5);
      std::vector<double> doubles(static_cast<size_t>(5 * ranks));
      std::vector<float> enough(static_cast<size_t>(5 * ranks));
      std::vector<uint8_t> bytes(3);
      const std::vector<int64_t> counts(static_cast<size_t>(ranks), 4);
      EXPECT_THROW(comm.all_gather(tensor_of(five), tensor_of(doubles)), Error);
      EXPECT_THROW(comm.all_gather(tensor_of(enough), tensor_of(enough)), Error);
      EXPECT_THROW(comm.all_gather_varied(tensor_of(five), tensor_of(enough), counts), Error);
      EXPECT_THROW(comm.all_gather_varied(tensor_of(five), tensor_of(enough), {}), Error);
      EXPECT_THROW(comm.reduce_scatter(tensor_of(enough), tensor_of(enough)), Error);
      EXPECT_THROW(comm.all_reduce(tensor_of(bytes)), Error);
      EXPECT_THROW(comm.all_reduce(Tensor(five.data(), {2}, DType::f8_e5m2)), Error);
      EXPECT_THROW(comm.broadcast(tensor_of(five), ranks), Error);
      EXPECT_THROW(comm.all_to_all_varied(tensor_of(five), counts, tensor_of(five), counts), Error);
      EXPECT_THROW(comm.isend(tensor_of(five), -1, Lane::control), Error);
      const Tensor columns = Tensor(enough.data(), {5, ranks}, DType::f32).column_range(0, ranks - 1);
      EXPECT_EQ(columns.is_contiguous(), false);
      EXPECT_THROW(comm.all_reduce(columns), Error);
      comm.barrier();  // and the communicator still works
    });
  }
}

TEST(CollectivesOfAnyType, ScratchIsWhatThePureFunctionSaysAndGrowsNoMore) {
  for (const int ranks : world_sizes()) {
    for (const int64_t count : sizes) {
      run_ranks(ranks, [&](Communicator& comm) {
        const int64_t promised = all_reduce_scratch_bytes(ranks, count * 4);
        EXPECT_LE(promised, std::max(int64_t{8} << 20, int64_t{8192} * ranks));
        comm.reserve(promised);
        std::vector<float> values = values_of<float>(comm.rank(), count);
        comm.all_reduce(tensor_of(values));
        EXPECT_EQ(comm.scratch_growths(), 0);
        EXPECT_EQ(comm.scratch_bytes(), promised);
        std::vector<float> more(static_cast<size_t>(ranks) * 4'000'000 / 8);
        std::vector<float> part(4'000'000 / 8);
        comm.reduce_scatter(tensor_of(more), tensor_of(part));
        const int64_t needed = reduce_scratch_bytes(ranks, 4'000'000 / 8 * 4);
        EXPECT_EQ(comm.scratch_growths(), needed > promised ? 1 : 0);
        EXPECT_EQ(comm.scratch_bytes(), std::max(needed, promised));
      });
    }
  }
}

// Sizes around every bend of the rules: one round or two, parts of other lengths, chunks.
TEST(CollectivesOfAnyType, TrafficIsWhatThePlanCounts) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      const auto expect_sent = [&](CommKind kind, const Sent& sent, const std::function<void()>& call) {
        const Traffic::Line before = comm.traffic()[kind];
        call();
        const Traffic::Line after = comm.traffic()[kind];
        EXPECT_EQ(after.bytes - before.bytes, sent.bytes) << name_of(kind);
        EXPECT_EQ(after.messages - before.messages, sent.messages) << name_of(kind);
      };
      for (const int64_t elements : {1, 30, 4096, 4097, 7001, 700'003}) {
        std::vector<float> whole(static_cast<size_t>(elements));
        expect_sent(CommKind::all_reduce, sent_in_all_reduce(elements, 4, comm.rank(), ranks),
                    [&] { comm.all_reduce(tensor_of(whole)); });
        std::vector<float> parts(static_cast<size_t>(elements * ranks));
        expect_sent(CommKind::reduce_scatter, sent_in_reduce_scatter(elements * 4, ranks),
                    [&] { comm.reduce_scatter(tensor_of(parts), tensor_of(whole)); });
        expect_sent(CommKind::all_gather, sent_in_all_gather(elements * 4, ranks),
                    [&] { comm.all_gather(tensor_of(whole), tensor_of(parts)); });
      }
    });
  }
}

TEST(CollectivesOfAnyType, TrafficIsWhatTheFormulasSay) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      const int64_t others = ranks - 1;
      std::vector<float> small(100);
      comm.all_reduce(tensor_of(small));
      EXPECT_EQ(comm.traffic()[CommKind::all_reduce], (Traffic::Line{1, others, others * 400}));

      const int64_t part = 24'000;  // the whole is above the size where all_reduce goes in two rounds
      std::vector<float> whole(static_cast<size_t>(part * ranks));
      comm.all_reduce(tensor_of(whole));
      EXPECT_EQ(comm.traffic()[CommKind::all_reduce],
                (Traffic::Line{2, 3 * others, others * (400 + 2 * part * 4)}));

      std::vector<float> mine(static_cast<size_t>(part));
      comm.reduce_scatter(tensor_of(whole), tensor_of(mine));
      EXPECT_EQ(comm.traffic()[CommKind::reduce_scatter], (Traffic::Line{1, others, others * part * 4}));
      comm.all_gather(tensor_of(mine), tensor_of(whole));
      EXPECT_EQ(comm.traffic()[CommKind::all_gather], (Traffic::Line{1, others, others * part * 4}));

      comm.broadcast(tensor_of(small), 0);
      const int64_t sends = comm.rank() == 0 ? others : 0;
      EXPECT_EQ(comm.traffic()[CommKind::broadcast], (Traffic::Line{1, sends, sends * 400}));
      comm.barrier();
      EXPECT_EQ(comm.traffic()[CommKind::barrier], (Traffic::Line{1, others, others}));
    });
  }
}

TEST(OrderedReduce, SixteenBitFloatsAreSummedInF32AndRoundedOnce) {
  // 256 + 0.75 + 0.75: rounding after each addition would leave 256.
  const BFloat16 a = to_bfloat16(256), b = to_bfloat16(0.75f);
  const void* sources[] = {&a, &b, &b};
  BFloat16 sum{};
  reduce_in_order(sources, &sum, 1, DType::bf16, Reduce::sum);
  EXPECT_EQ(widen(sum), 258);
  const Float16 c = to_float16(2048), d = to_float16(0.75f);
  const void* halves[] = {&c, &d, &d};
  Float16 half{};
  reduce_in_order(halves, &half, 1, DType::f16, Reduce::sum);
  EXPECT_EQ(widen(half), 2050);
  reduce_in_order(halves, &half, 1, DType::f16, Reduce::min);
  EXPECT_EQ(widen(half), 0.75f);
}

TEST(OrderedReduce, SumsWrapForIntegersAndRefuseOtherTypes) {
  const std::vector<int32_t> high = {std::numeric_limits<int32_t>::max()};
  const std::vector<int32_t> one = {1};
  const void* sources[] = {high.data(), one.data()};
  int32_t sum = 0;
  reduce_in_order(sources, &sum, 1, DType::i32, Reduce::sum);
  EXPECT_EQ(sum, std::numeric_limits<int32_t>::min());
  EXPECT_THROW(reduce_in_order(sources, &sum, 1, DType::f8_e4m3, Reduce::sum), Error);
  EXPECT_THROW(reduce_in_order(sources, &sum, 1, DType::u8, Reduce::sum), Error);
}

}  // namespace
}  // namespace ptrain
