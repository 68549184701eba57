// Which order device communications keep: what waits for what, that the host never does, and what is said
// when ranks do not fit together.
#include <gtest/gtest.h>

#include <array>
#include <atomic>

#include "tests/parallel/comm/values.h"
#include "tests/support/device_ranks.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/fake_nccl.h"

namespace ptrain {
namespace {

constexpr int64_t bucket_elements = 24;
constexpr int num_buckets = 5;

Tensor elements(Tensor flat, int64_t begin, int64_t count) {
  return Tensor(flat.at(begin), {count}, flat.dtype, flat.device);
}

/// Enqueues to[i] = value(i).
template <class Value>
void enqueue_values(const Stream& stream, Tensor to, Value value) {
  enqueue(stream, [to, value] {
    for (int64_t i = 0; i < to.numel(); ++i) to.as<float>()[i] = value(i);
  });
}

/// Steps as a trainer makes them: gradients bucket by bucket, each sum started at once; then the update of
/// the own shards and the gathering of parameters, which the next step's gradients depend on.
std::vector<float> train(DeviceRank& at, int steps) {
  Communicator& data = *at.comms.data;
  const int64_t shard = bucket_elements / data.size();
  const OwnedTensor gradients = at.zeros<float>(num_buckets * bucket_elements);
  const OwnedTensor parameters = at.zeros<float>(num_buckets * bucket_elements);
  const int64_t waited = emulation::counts().synchronizations;
  const int64_t allocated = emulation::counts().allocations;
  for (int step = 1; step <= steps; ++step) {
    std::vector<Transfer> transfers;
    for (int bucket = 0; bucket < num_buckets; ++bucket) {
      const Tensor whole = elements(gradients.view, bucket * bucket_elements, bucket_elements);
      const Tensor now = elements(parameters.view, bucket * bucket_elements, bucket_elements);
      const int rank = data.rank();
      enqueue_values(at.compute, whole,
                     [=](int64_t i) { return now.as<float>()[i] + static_cast<float>(step * (rank + 1)); });
      transfers.push_back(data.start_reduce_scatter(whole, elements(whole, data.rank() * shard, shard)));
      data.poll();
    }
    for (Transfer& transfer : transfers) transfer.wait();
    for (int bucket = 0; bucket < num_buckets; ++bucket) {
      const int64_t begin = bucket * bucket_elements;
      const Tensor own = elements(parameters.view, begin + data.rank() * shard, shard);
      const Tensor sum = elements(gradients.view, begin + data.rank() * shard, shard);
      enqueue_values(at.compute, own,
                     [=](int64_t i) { return own.as<float>()[i] + sum.as<float>()[i] / 64; });
      data.all_gather(own, elements(parameters.view, begin, bucket_elements));
    }
  }
  if (at.nccl != nullptr) {
    EXPECT_EQ(emulation::counts().synchronizations, waited);
    EXPECT_EQ(emulation::counts().allocations, allocated);
    EXPECT_EQ(data.scratch_growths(), 0);
  }
  return at.get<float>(parameters.view);
}

float trained_by_hand(int ranks, int steps) {
  float parameter = 0;
  for (int step = 1; step <= steps; ++step) {
    float sum = 0;
    for (int rank = 0; rank < ranks; ++rank) sum += parameter + static_cast<float>(step * (rank + 1));
    parameter += sum / 64;
  }
  return parameter;
}

TEST(DeviceOrder, StepsGiveTheSameNumbersInEveryOrderOfStreamsAndTheHostNeverWaits) {
  for (Through through : {Through::nccl, Through::eager_nccl, Through::host}) {
    for (int ranks : {1, 2, 3, 4}) {
      for (uint64_t seed = 1; seed <= 8; ++seed) {
        run_device_ranks({.mesh = {.data = ranks}, .through = through, .seed = seed}, [&](DeviceRank& at) {
          for (float value : train(at, 4)) EXPECT_EQ(value, trained_by_hand(ranks, 4)) << name_of(through);
        });
      }
    }
  }
}

enum class Wait { before_use, too_late };
enum class Use { read_result, overwrite_source };

/// Whether ranks see the right sums when a tensor of a started sum is used by compute.
bool is_right(Wait wait, Use use, uint64_t seed) {
  std::atomic<bool> right = true;
  run_device_ranks({.mesh = {.data = 2}, .seed = seed}, [&](DeviceRank& at) {
    const OwnedTensor whole = at.zeros<float>(8), part = at.zeros<float>(4), seen = at.zeros<float>(4);
    enqueue_values(at.compute, whole.view, [](int64_t i) { return static_cast<float>(i + 1); });
    Transfer transfer = at.comms.data->start_reduce_scatter(whole.view, part.view);
    if (wait == Wait::before_use) transfer.wait();
    if (use == Use::overwrite_source)
      enqueue_values(at.compute, whole.view, [](int64_t) { return -1.0F; });
    else
      enqueue_values(at.compute, seen.view, [&](int64_t i) { return part.view.as<float>()[i]; });
    transfer.wait();
    const std::vector<float> values = at.get<float>(use == Use::read_result ? seen.view : part.view);
    for (int64_t i = 0; i < 4; ++i) {
      const auto expected = static_cast<float>(2 * (at.host.rank() * 4 + i + 1));
      if (values[static_cast<size_t>(i)] != expected) right = false;
    }
  });
  return right;
}

TEST(DeviceOrder, AWaitThatIsMissingShowsAndOneThatIsThereHelps) {
  for (Use use : {Use::read_result, Use::overwrite_source}) {
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 12; ++seed) {
      EXPECT_TRUE(is_right(Wait::before_use, use, seed));
      wrong += is_right(Wait::too_late, use, seed) ? 0 : 1;
    }
    EXPECT_GT(wrong, 0);
  }
}

TEST(DeviceOrder, ABlockingCollectiveDoesNotOvertakeAStartedOne) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    run_device_ranks({.mesh = {.data = 3}, .seed = seed}, [](DeviceRank& at) {
      const OwnedTensor whole = at.zeros<float>(12), part = at.zeros<float>(4), other = at.zeros<float>(5);
      at.put(std::vector<float>(12, 1), whole.view);
      at.put(std::vector<float>(5, 2), other.view);
      Transfer transfer = at.comms.data->start_reduce_scatter(whole.view, part.view);
      at.comms.data->all_reduce(other.view);  // a fake that finds both under way at once throws
      transfer.wait();
      EXPECT_EQ(at.get<float>(other.view), std::vector<float>(5, 6));
      EXPECT_EQ(at.get<float>(part.view), std::vector<float>(4, 3));
    });
  }
}

TEST(DeviceOrder, AStartedSumDoesNotQueueBehindOneOfAnotherGroup) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    run_device_ranks({.mesh = {.data = 2, .tensor = 2}, .seed = seed}, [](DeviceRank& at) {
      const OwnedTensor gradients = at.zeros<float>(8), shard = at.zeros<float>(4), rows = at.zeros<float>(3);
      at.put(std::vector<float>(8, 1), gradients.view);
      at.put(std::vector<float>(3, 2), rows.view);
      // Half of the ranks are late with their gradients: only once the other half has its rows they come.
      const bool is_late = at.comms.data->rank() == 1;
      const auto start_gradients = [&] {
        return at.comms.data->start_reduce_scatter(gradients.view, shard.view);
      };
      int32_t go = 0;
      const Tensor message(&go, {1}, DType::i32);
      Transfer sum = is_late ? Transfer{} : start_gradients();
      at.comms.tensor->start_all_reduce(rows.view).wait();
      EXPECT_EQ(at.get<float>(rows.view), std::vector<float>(3, 4));
      if (!is_late) at.host.isend(message, at.host.rank() + 2, Lane::control).wait();
      if (is_late) at.host.irecv(message, at.host.rank() - 2, Lane::control).wait();
      if (is_late) sum = start_gradients();
      sum.wait();
      EXPECT_EQ(at.get<float>(shard.view), std::vector<float>(4, 2));
    });
  }
}

// --- What does not fit -------------------------------------------------------------------------------------

void expect_failure(const DeviceTest& test, const std::function<void(DeviceRank&)>& body, ExitCode code,
                    const std::string& says) {
  try {
    run_device_ranks(test, body);
    ADD_FAILURE() << "nothing was thrown; expected: " << says;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
  }
}

TEST(DeviceOrder, RanksThatDoNotFitTogetherAreNamed) {
  const DeviceTest test{.mesh = {.data = 2}};
  // 1. Another count.
  expect_failure(
      test,
      [](DeviceRank& at) {
        const OwnedTensor x = at.zeros<float>(7 + at.host.rank());
        at.comms.data->all_reduce(x.view);
        at.compute.synchronize();
      },
      ExitCode::defect, "all_reduce 7 f32");
  // 2. Another order.
  expect_failure(
      test,
      [](DeviceRank& at) {
        const OwnedTensor x = at.zeros<float>(8), y = at.zeros<float>(8);
        if (at.host.rank() == 0) at.comms.data->broadcast(y.view, 0);
        at.comms.data->all_reduce(x.view);
        if (at.host.rank() == 1) at.comms.data->broadcast(y.view, 0);
        at.compute.synchronize();
      },
      ExitCode::defect, "broadcast 8 f32");
  // 3. A message of another length.
  expect_failure(
      {.mesh = {.pipeline = 2}, .edges = {{TransferLane::activation, 0, 1}}},
      [](DeviceRank& at) {
        const OwnedTensor x = at.zeros<float>(8 + at.host.rank());
        const bool is_sender = at.host.rank() == 0;
        Communicator& line = *at.comms.pipeline;
        (is_sender ? line.isend(x.view, 1, Lane::activation) : line.irecv(x.view, 0, Lane::activation))
            .wait();
        at.compute.synchronize();
      },
      ExitCode::defect, "receives point_to_point 9 f32");
}

TEST(DeviceOrder, AMessageOnALaneThatWasNotOpenedIsADefect) {
  expect_failure(
      {.mesh = {.pipeline = 2}, .edges = {{TransferLane::activation, 0, 1}}},
      [](DeviceRank& at) {
        const OwnedTensor x = at.zeros<float>(8);
        if (at.host.rank() == 0) at.comms.pipeline->isend(x.view, 1, Lane::gradient);
      },
      ExitCode::defect, "no lane was opened for gradient from rank 0 to 1");
}

TEST(DeviceOrder, ADroppedTransferIsSaidAtTheNextCall) {
  expect_failure(
      {.mesh = {.data = 2}},
      [](DeviceRank& at) {
        const OwnedTensor x = at.zeros<float>(8), y = at.zeros<float>(4);
        { const Transfer dropped = at.comms.data->start_reduce_scatter(x.view, y.view); }
        try {
          at.comms.data->all_reduce(x.view);
        } catch (...) {
          at.compute.synchronize();  // the tensors go next
          throw;
        }
      },
      ExitCode::defect, "a transfer was dropped before it was waited for");
}

TEST(DeviceOrder, ARankThatNeverConnectsEndsTheOthersAtTheDeadline) {
  FakeNcclWorld world;
  try {
    run_thread_ranks(2, [&](Communicator& host) {
      FakeNccl nccl(world);
      if (host.rank() == 1) {
        std::array<char, 128> address{};
        host.broadcast(Tensor(address.data(), {128}, DType::u8), 0);
        return;
      }
      const Stream compute(gpu);
      make_device_comms(host, {.data = 2}, gpu, compute, {.nccl = &nccl, .hosts = 5, .deadline_s = 0.05});
    });
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::resources);
    EXPECT_STREQ(error.what(), "the start on rank 0 of 2 ranks on 5 hosts: another rank never came");
  }
}

TEST(DeviceOrder, WhatNcclFindsBehindTheScenesIsToldByPollWithTheGroupsName) {
  expect_failure(
      {.mesh = {.data = 2}},
      [](DeviceRank& at) {
        at.comms.data->poll();
        at.host.barrier();
        static_cast<FakeNccl&>(*at.nccl).break_with("the link to host b is down");
        at.comms.data->poll();
      },
      ExitCode::resources, "the communicator of all 2 ranks: the link to host b is down");
}

TEST(DeviceOrder, TransfersBeyondTheEventsThatWereMadeAreCountedAsGrowth) {
  run_device_ranks({.mesh = {.data = 2}, .events = 3}, [](DeviceRank& at) {
    const OwnedTensor x = at.zeros<float>(16);
    for (int transfers : {3, 5, 5}) {
      std::vector<Transfer> under_way;
      for (int i = 0; i < transfers; ++i)
        under_way.push_back(at.comms.data->start_all_gather(elements(x.view, at.host.rank() * 8, 8), x.view));
      for (Transfer& transfer : under_way) EXPECT_TRUE(transfer.is_done());
      EXPECT_EQ(at.comms.data->scratch_growths(), transfers == 3 ? 0 : 2);
    }
    at.compute.synchronize();
  });
}

TEST(DeviceOrder, MemoryIsRegisteredWithEveryGroupThatTakesIt) {
  const DeviceTest test{.mesh = {.pipeline = 2, .data = 2}, .edges = ring_edges(2)};
  run_device_ranks(test, [](DeviceRank& at) {
    const OwnedTensor x = at.zeros<float>(8);
    const Registered registered = register_memory(at.comms, x.view.data, x.view.bytes());
    EXPECT_EQ(registered.windows, 0);  // the fake takes none
    EXPECT_EQ(registered.local, 2);
    EXPECT_EQ(registered.declined, 0);
  });
}

TEST(DeviceOrder, AWorldOfAnotherSizeIsRefused) {
  run_thread_ranks(2, [](Communicator& host) {
    const Stream compute(gpu);
    EXPECT_THROW(make_device_comms(host, {.data = 3}, gpu, compute, {}), Error);
  });
}

}  // namespace
}  // namespace ptrain
