// What only threads can show: failures and deadlocks that end in an exception, and bits that stay.
#include <gtest/gtest.h>

#include <stdexcept>

#include "parallel/comm/self_comm.h"
#include "tests/parallel/comm/values.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

// The text of what run_thread_ranks throws; empty if nothing.
std::string failure_of(int ranks, const std::function<void(Communicator&)>& body,
                       ExitCode expected = ExitCode::defect) {
  try {
    run_thread_ranks(ranks, body);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), expected);
    return error.what();
  }
  return "";
}

TEST(ThreadRanks, AThrowingRankWakesTheOthersAndItsErrorComesOut) {
  for (const int ranks : {1, 2, 5}) {
    for (int bad = 0; bad < ranks; ++bad) {
      std::vector<int> has_ended(static_cast<size_t>(ranks), 0);
      const std::string text = failure_of(
          ranks,
          [&](Communicator& comm) {
            if (comm.rank() == bad) fail(ExitCode::input, "rank {} has found a broken file", comm.rank());
            std::vector<float> values(100'000);
            try {
              comm.all_reduce(tensor_of(values));
            } catch (const Error& error) {
              has_ended[static_cast<size_t>(comm.rank())] = 1;
              EXPECT_NE(std::string(error.what()).find("has found a broken file"), std::string::npos);
              throw;
            }
          },
          ExitCode::input);
      EXPECT_EQ(text, fmt::format("rank {} has found a broken file", bad));
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_EQ(has_ended[static_cast<size_t>(rank)], rank == bad ? 0 : 1);
      }
    }
  }
}

TEST(ThreadRanks, AnExceptionOfAnotherTypeComesOutAsItIs) {
  EXPECT_THROW(run_thread_ranks(3,
                                [](Communicator& comm) {
                                  if (comm.rank() == 2) throw std::out_of_range("no such key");
                                  comm.barrier();
                                }),
               std::out_of_range);
}

TEST(ThreadRanks, RanksThatAllWaitAreToldSoInsteadOfHanging) {
  const std::string all = failure_of(
      3,
      [](Communicator& comm) {
        std::vector<float> values(4);
        comm.irecv(tensor_of(values), (comm.rank() + 1) % 3, Lane::activation).wait();
      },
      ExitCode::hang);
  EXPECT_EQ(all, "deadlock: ranks 0, 1, 2 wait and nobody is left to send");
  const std::string one = failure_of(
      3,
      [](Communicator& comm) {
        if (comm.rank() == 1) comm.barrier();
      },
      ExitCode::hang);
  EXPECT_EQ(one, "deadlock: ranks 1 wait and nobody is left to send");
}

TEST(ThreadRanks, AMessageOfAnotherLengthThanExpectedIsAnErrorWithBothLengths) {
  const std::string text = failure_of(2, [](Communicator& comm) {
    std::vector<float> values(comm.rank() == 0 ? 3 : 4);
    const Tensor tensor = tensor_of(values);
    Transfer transfer =
        comm.rank() == 0 ? comm.isend(tensor, 1, Lane::control) : comm.irecv(tensor, 0, Lane::control);
    transfer.wait();
  });
  EXPECT_EQ(text, "rank 0 sent 12 bytes to rank 1, which expected 16");
}

TEST(ThreadRanks, ADroppedTransferIsReportedByTheNextCall) {
  const std::string text = failure_of(1, [](Communicator& comm) {
    std::vector<float> values(3);
    { const Transfer dropped = comm.irecv(tensor_of(values), 0, Lane::control); }
    comm.barrier();
  });
  EXPECT_EQ(text, "a transfer was dropped before it was done");
}

TEST(ThreadRanks, AnErrorWhileACollectiveIsUnderWayLeavesNobodyWritingToDeadMemory) {
  // For the sanitizers: rank 0 unwinds with its half-done reduction while the others still send to it.
  for (int times = 0; times < 20; ++times) {
    EXPECT_EQ(failure_of(4,
                         [](Communicator& comm) {
                           std::vector<float> whole(4 * 600'000);
                           std::vector<float> part(600'000);
                           Transfer reduction = comm.start_reduce_scatter(tensor_of(whole), tensor_of(part));
                           check(comm.rank() != 0, "rank 0 gives up");
                           reduction.wait();
                         }),
              "rank 0 gives up");
  }
}

TEST(ThreadRanks, AWorldOfOneNeedsNoThread) {
  const std::unique_ptr<Communicator> self = make_self_communicator();
  EXPECT_EQ(self->rank(), 0);
  EXPECT_EQ(self->size(), 1);
  std::vector<float> values = values_of<float>(0, 5003);
  const std::vector<float> before = values;
  std::vector<float> copy(values.size());
  self->all_reduce(tensor_of(values));
  self->broadcast(tensor_of(values), 0);
  self->reduce_scatter(tensor_of(values), tensor_of(copy));
  EXPECT_TRUE(same_bits(values, before));
  EXPECT_TRUE(same_bits(copy, before));
  std::fill(copy.begin(), copy.end(), 0.0F);
  self->all_gather(tensor_of(values), tensor_of(copy));
  EXPECT_TRUE(same_bits(copy, before));
  self->barrier();
  EXPECT_EQ(self->scratch_growths(), 0);
  const std::unique_ptr<Communicator> group = self->split(3, 1);
  EXPECT_EQ(group->size(), 1);
  EXPECT_EQ(self->split(-1, 0), nullptr);
}

}  // namespace
}  // namespace ptrain
