// Messages between two ranks, their order, and collectives that go on meanwhile.
#include <gtest/gtest.h>

#include "tests/parallel/comm/values.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

constexpr Lane lanes[] = {Lane::activation, Lane::gradient, Lane::control};

// The length of message k on a lane: from nothing to above MPI's eager limit, short ones behind long ones.
int64_t length_of(int message, int lane) {
  static constexpr int64_t lengths[] = {300'007, 1, 0, 17, 5003, 2};
  return lengths[(message + lane) % 6];
}
// Which values it carries; all different.
int content_of(int from, int to, int lane, int message) {
  return ((from * 16 + to) * 4 + lane) * 32 + message;
}

TEST(Transfers, ALaneDeliversInTheOrderOfSendingAndLanesDoNotWaitForEachOther) {
  constexpr int messages = 7;
  for (const int ranks : world_sizes({1, 2, 3, 4})) {
    run_ranks(ranks, [&](Communicator& comm) {
      std::vector<std::vector<float>> buffers;  // stay until all is done
      std::vector<std::vector<float>> expected;
      std::vector<Transfer> transfers;
      buffers.reserve(static_cast<size_t>(2 * ranks * num_lanes * messages));
      // All to all. Sends go lane by lane, receives are posted message by message and the lanes backwards.
      for (int lane = 0; lane < num_lanes; ++lane) {
        for (int message = 0; message < messages; ++message) {
          for (int peer = 0; peer < ranks; ++peer) {
            buffers.push_back(
                values_of<float>(content_of(comm.rank(), peer, lane, message), length_of(message, lane)));
            transfers.push_back(comm.isend(tensor_of(buffers.back()), peer, lanes[lane]));
          }
        }
      }
      const size_t first_received = buffers.size();
      for (int message = 0; message < messages; ++message) {
        for (int lane = num_lanes - 1; lane >= 0; --lane) {
          for (int peer = 0; peer < ranks; ++peer) {
            expected.push_back(
                values_of<float>(content_of(peer, comm.rank(), lane, message), length_of(message, lane)));
            buffers.emplace_back(expected.back().size());
            transfers.push_back(comm.irecv(tensor_of(buffers.back()), peer, lanes[lane]));
          }
        }
      }
      for (Transfer& transfer : transfers) transfer.wait();
      for (size_t i = 0; i < expected.size(); ++i) {
        EXPECT_TRUE(same_bits(buffers[first_received + i], expected[i])) << "receive " << i;
      }
    });
  }
}

TEST(Transfers, SendsOfAnySizeDoNotBlockWhenBothSendFirst) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      const int right = (comm.rank() + 1) % ranks;
      const int left = (comm.rank() + ranks - 1) % ranks;
      std::vector<float> sent = values_of<float>(comm.rank(), 400'000);  // 1.6 MB
      std::vector<float> received(sent.size());
      Transfer send = comm.isend(tensor_of(sent), right, Lane::activation);
      Transfer receive = comm.irecv(tensor_of(received), left, Lane::activation);
      receive.wait();
      send.wait();
      EXPECT_TRUE(same_bits(received, values_of<float>(left, 400'000)));
    });
  }
}

TEST(Transfers, AStartedReduceScatterGoesOnByPollsWhileMessagesTravel) {
  constexpr int64_t part = 700'001;  // several chunks, the last of them odd
  constexpr int64_t length = 50'021;
  for (const int ranks : world_sizes({2, 3, 4, 8})) {
    const std::vector<float> expected = naive_sum<float>(ranks, part * ranks);
    run_ranks(ranks, [&](Communicator& comm) {
      const std::unique_ptr<Communicator> pipeline = comm.split(0, comm.rank());
      const int right = (comm.rank() + 1) % ranks;
      const int left = (comm.rank() + ranks - 1) % ranks;
      std::vector<float> whole = values_of<float>(comm.rank(), part * ranks);
      std::vector<float> mine(static_cast<size_t>(part));
      Transfer reduction = comm.start_reduce_scatter(tensor_of(whole), tensor_of(mine));

      // Messages on another communicator: waiting there must not stop the reduction, nor the other way round.
      for (int round = 0; round < 5; ++round) {
        std::vector<float> sent = values_of<float>(comm.rank() + 100 * round, length);
        std::vector<float> received(sent.size());
        Transfer receive = pipeline->irecv(tensor_of(received), left, Lane::activation);
        Transfer send = pipeline->isend(tensor_of(sent), right, Lane::activation);
        receive.wait();
        send.wait();
        EXPECT_TRUE(same_bits(received, values_of<float>(left + 100 * round, length)));
      }
      while (!reduction.is_done()) comm.poll();
      const auto begin = expected.begin() + comm.rank() * part;
      EXPECT_TRUE(same_bits(mine, std::vector<float>(begin, begin + part)));
    });
  }
}

TEST(Transfers, AWaitOnOneCommunicatorMovesTheCollectivesOfAnother) {
  // The even ranks wait for a message that their neighbours send only when the reduction is done, and the
  // reduction needs the even ranks to go on with it.
  for (const int ranks : world_sizes({2, 4, 6})) {
    if (ranks % 2 != 0) continue;
    run_ranks(ranks, [&](Communicator& comm) {
      const std::unique_ptr<Communicator> other = comm.split(0, comm.rank());
      constexpr int64_t part = 900'001;
      std::vector<float> whole = values_of<float>(comm.rank(), part * ranks);
      std::vector<float> mine(static_cast<size_t>(part));
      std::vector<int32_t> token = {comm.rank()};
      Transfer reduction = other->start_reduce_scatter(tensor_of(whole), tensor_of(mine));
      const bool is_waiter = comm.rank() % 2 == 0;
      if (is_waiter) {
        comm.irecv(tensor_of(token), comm.rank() + 1, Lane::control).wait();
        EXPECT_EQ(token[0], comm.rank() + 1);
        reduction.wait();
      } else {
        reduction.wait();
        comm.isend(tensor_of(token), comm.rank() - 1, Lane::control).wait();
      }
    });
  }
}

TEST(Transfers, StartedCollectivesRunInTheOrderOfTheCalls) {
  for (const int ranks : world_sizes()) {
    run_ranks(ranks, [&](Communicator& comm) {
      constexpr int64_t part = 30'011;
      const std::vector<double> expected = naive_sum<double>(ranks, part * ranks);
      std::vector<double> whole = values_of<double>(comm.rank(), part * ranks);
      std::vector<double> mine(static_cast<size_t>(part));
      std::vector<double> gathered(whole.size());
      std::vector<double> one = {1.0};
      // The second gathers what the first brings, the third adds that up again; the last is a blocking one.
      Transfer reduction = comm.start_reduce_scatter(tensor_of(whole), tensor_of(mine));
      Transfer gather = comm.start_all_gather(tensor_of(mine), tensor_of(gathered));
      Transfer sum = comm.start_all_reduce(tensor_of(gathered));
      comm.all_reduce(tensor_of(one));
      EXPECT_TRUE(reduction.is_done());
      EXPECT_TRUE(gather.is_done());
      EXPECT_TRUE(sum.is_done());
      EXPECT_EQ(one[0], ranks);
      for (size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(gathered[i], ranks * expected[i], 1e-14 * ranks * std::abs(expected[i]));
    });
  }
}

TEST(Transfers, ATransferCanBeMovedAndAnEmptyOneIsDone) {
  run_ranks(1, [](Communicator& comm) {
    std::vector<int32_t> sent = {42};
    std::vector<int32_t> received = {0};
    Transfer send = comm.isend(tensor_of(sent), 0, Lane::control);
    Transfer moved = std::move(send);
    Transfer receive;
    EXPECT_TRUE(receive.is_done());
    receive = comm.irecv(tensor_of(received), 0, Lane::control);
    moved.wait();
    receive.wait();
    EXPECT_TRUE(moved.is_done() && receive.is_done());
    EXPECT_EQ(received[0], 42);
  });
}

TEST(Transfers, SendsToOthersAreCountedAndThoseToItselfAreNot) {
  for (const int ranks : world_sizes({1, 2, 3})) {
    run_ranks(ranks, [&](Communicator& comm) {
      std::vector<float> sent(10);
      std::vector<float> received(10);
      for (int peer = 0; peer < ranks; ++peer) {
        Transfer receive = comm.irecv(tensor_of(received), peer, Lane::gradient);
        comm.isend(tensor_of(sent), peer, Lane::gradient).wait();
        receive.wait();
      }
      const int64_t others = ranks - 1;
      EXPECT_EQ(comm.traffic()[CommKind::point_to_point], (Traffic::Line{others, others, others * 40}));
    });
  }
}

}  // namespace
}  // namespace ptrain
