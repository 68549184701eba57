// Collectives and messages of device tensors, over a fake NCCL and staged, in random orders of streams.
#include <gtest/gtest.h>

#include "kernels/base/float16.h"
#include "tests/parallel/comm/sum_tree.h"
#include "tests/parallel/comm/values.h"
#include "tests/support/device_ranks.h"

namespace ptrain {
namespace {

constexpr Through all_ways[] = {Through::nccl, Through::eager_nccl, Through::host};

/// Calls body for 1 to 4 ranks along the data axis, every way, several orders of streams.
void over_worlds(const std::function<void(DeviceRank&)>& body) {
  for (Through through : all_ways) {
    for (int ranks = 1; ranks <= 4; ++ranks) {
      for (uint64_t seed = 1; seed <= 2; ++seed) {
        SCOPED_TRACE(fmt::format("{}, {} ranks, seed {}", name_of(through), ranks, seed));
        // Staging of 96 bytes: collectives go in many pieces.
        run_device_ranks({.mesh = {.data = ranks}, .through = through, .seed = seed, .staging_bytes = 96},
                         body);
      }
    }
  }
}

template <class T>
std::vector<T> range_of(const std::vector<T>& values, int64_t begin, int64_t count) {
  return {values.begin() + begin, values.begin() + begin + count};
}

template <class T>
void expect_reductions(DeviceRank& at) {
  Communicator& data = *at.comms.data;
  const int64_t n = 37;
  const std::vector<T> sum = naive_sum<T>(data.size(), n * data.size());
  const OwnedTensor whole = at.zeros<T>(n * data.size());
  const OwnedTensor part = at.zeros<T>(n);
  // 1. all_reduce in place, reduce_scatter into another tensor and in place.
  const std::vector<T> mine = values_of<T>(data.rank(), n * data.size());
  at.put(mine, whole.view);
  data.reduce_scatter(whole.view, part.view);
  EXPECT_EQ(at.get<T>(whole.view), mine);
  EXPECT_EQ(at.get<T>(part.view), range_of(sum, n * data.rank(), n));
  data.start_reduce_scatter(whole.view, whole.view.reshaped({data.size(), n}).row_range(data.rank(), 1))
      .wait();
  EXPECT_EQ(range_of(at.get<T>(whole.view), n * data.rank(), n), range_of(sum, n * data.rank(), n));
  at.put(mine, whole.view);
  data.all_reduce(whole.view);
  EXPECT_EQ(at.get<T>(whole.view), sum);
  at.put(mine, whole.view);
  data.start_all_reduce(whole.view).wait();
  EXPECT_EQ(at.get<T>(whole.view), sum);
  // 2. Largest and smallest.
  at.put(std::vector<T>{static_cast<T>(data.rank() + 3)},
         Tensor(part.view.data, {1}, dtype_of<T>, at.device));
  data.all_reduce(Tensor(part.view.data, {1}, dtype_of<T>, at.device), Reduce::max);
  EXPECT_EQ(at.get<T>(part.view)[0], static_cast<T>(data.size() + 2));
}

TEST(DeviceComm, ReductionsOfEveryDtypeGiveTheOrderedSums) {
  over_worlds([](DeviceRank& at) {
    expect_reductions<float>(at);
    expect_reductions<double>(at);
    expect_reductions<int32_t>(at);
    expect_reductions<int64_t>(at);
  });
}

TEST(DeviceComm, SumsOfSixteenBitsAreRoundedOnce) {
  for (Through through : all_ways) {
    run_device_ranks({.mesh = {.data = 3}, .through = through}, [](DeviceRank& at) {
      const OwnedTensor x({5}, DType::bf16, at.device);
      std::vector<uint16_t> bits;
      const float values[3] = {256.0F, 1.0F, 1.0F};  // 257 is no bf16, 258 is
      const BFloat16 value = to_bfloat16(values[at.host.rank()]);
      for (int i = 0; i < 5; ++i) bits.push_back(std::bit_cast<uint16_t>(value));
      at.put(bits, x.view);
      at.comms.data->all_reduce(x.view);
      for (uint16_t sum : at.get<uint16_t>(x.view)) EXPECT_EQ(widen(std::bit_cast<BFloat16>(sum)), 258.0F);
    });
  }
}

TEST(DeviceComm, SumsAsATreeGoThroughTheHostAndOverNcclOfTwo) {
  for (Through through : all_ways) {
    for (const int ranks : {2, 5}) {
      run_device_ranks({.mesh = {.data = ranks}, .through = through}, [&](DeviceRank& at) {
        Communicator& data = *at.comms.data;
        constexpr int64_t part = 37;
        std::vector<std::vector<float>> addends;
        for (int rank = 0; rank < ranks; ++rank) addends.push_back(values_of<float>(rank, part * ranks));
        const OwnedTensor whole = at.zeros<float>(part * ranks), mine = at.zeros<float>(part);
        at.put(addends[static_cast<size_t>(data.rank())], whole.view);
        if (through == Through::host || ranks == 2) {
          const std::vector<float> expected = sum_tree(addends);
          const auto begin = expected.begin() + data.rank() * part;
          data.reduce_scatter(whole.view, mine.view, SumOrder::tree);
          EXPECT_EQ(at.get<float>(mine.view), (std::vector<float>(begin, begin + part)));
          at.put(std::vector<float>(part), mine.view);
          data.start_reduce_scatter(whole.view, mine.view, SumOrder::tree).wait();
          EXPECT_EQ(at.get<float>(mine.view), (std::vector<float>(begin, begin + part)));
          data.all_reduce(whole.view, Reduce::sum, SumOrder::tree);
          EXPECT_EQ(at.get<float>(whole.view), expected);
          return;
        }
        // Refused before anything is enqueued; what has one result in any order is not.
        const auto refusal = [&](const std::function<void()>& call) {
          try {
            call();
          } catch (const Error& error) {
            EXPECT_EQ(error.code(), ExitCode::usage);
            return std::string(error.what());
          }
          return std::string("accepted");
        };
        for (const std::string& text :
             {refusal([&] { data.all_reduce(whole.view, Reduce::sum, SumOrder::tree); }),
              refusal([&] { data.start_all_reduce(whole.view, Reduce::sum, SumOrder::tree).wait(); }),
              refusal([&] { data.reduce_scatter(whole.view, mine.view, SumOrder::tree); }),
              refusal([&] { data.start_reduce_scatter(whole.view, mine.view, SumOrder::tree).wait(); })}) {
          EXPECT_NE(text.find("a tree over the 5 ranks"), std::string::npos) << text;
          EXPECT_NE(text.find("train.deterministic"), std::string::npos) << text;
        }
        const OwnedTensor bins = at.zeros<int64_t>(3);
        at.put(values_of<int64_t>(data.rank(), 3), bins.view);
        data.all_reduce(bins.view, Reduce::sum, SumOrder::tree);
        EXPECT_EQ(at.get<int64_t>(bins.view), naive_sum<int64_t>(ranks, 3));
        at.put(values_of<float>(data.rank(), part), mine.view);
        data.all_reduce(mine.view, Reduce::max, SumOrder::tree);
        const std::vector<float> largest = at.get<float>(mine.view);
        for (int64_t i = 0; i < part; ++i)
          EXPECT_GE(largest[static_cast<size_t>(i)], value_at<float>(data.rank(), i));
      });
    }
  }
}

TEST(DeviceComm, WhatIsGatheredAndSpreadLiesInRankOrder) {
  over_worlds([](DeviceRank& at) {
    Communicator& data = *at.comms.data;
    const int size = data.size(), rank = data.rank();
    // 1. Equal parts, from outside and in place, blocking and started.
    const int64_t n = 29;
    std::vector<float> expected;
    for (int r = 0; r < size; ++r) {
      const std::vector<float> theirs = values_of<float>(r, n);
      expected.insert(expected.end(), theirs.begin(), theirs.end());
    }
    const OwnedTensor part = at.zeros<float>(n), whole = at.zeros<float>(n * size);
    at.put(values_of<float>(rank, n), part.view);
    data.all_gather(part.view, whole.view);
    EXPECT_EQ(at.get<float>(whole.view), expected);
    const OwnedTensor again = at.zeros<float>(n * size);
    const Tensor place(again.view.at(rank * n), {n}, DType::f32, at.device);
    at.put(values_of<float>(rank, n), place);
    data.start_all_gather(place, again.view).wait();
    EXPECT_EQ(at.get<float>(again.view), expected);
    // 2. Unequal parts, one of them empty.
    std::vector<int64_t> counts;
    std::vector<double> varied;
    for (int r = 0; r < size; ++r) {
      counts.push_back(r == 1 ? 0 : 5 * r + 3);
      const std::vector<double> theirs = values_of<double>(r, counts.back());
      varied.insert(varied.end(), theirs.begin(), theirs.end());
    }
    const int64_t own = counts[static_cast<size_t>(rank)];
    const OwnedTensor some = at.zeros<double>(own), all = at.zeros<double>(std::ssize(varied));
    at.put(values_of<double>(rank, own), some.view);
    data.all_gather_varied(some.view, all.view, counts);
    EXPECT_EQ(at.get<double>(all.view), varied);
    // 3. From every root.
    for (int root = 0; root < size; ++root) {
      at.put(values_of<float>(rank, n), part.view);
      data.broadcast(part.view, root);
      EXPECT_EQ(at.get<float>(part.view), values_of<float>(root, n));
    }
  });
}

TEST(DeviceComm, AllToAllDealsOutUnequalParts) {
  over_worlds([](DeviceRank& at) {
    Communicator& data = *at.comms.data;
    const int size = data.size(), rank = data.rank();
    const auto count = [](int from, int to) { return int64_t{(3 * from + 5 * to) % 7}; };
    const auto value = [](int from, int to, int64_t i) {
      return static_cast<float>(1000 * from + 100 * to + i);
    };
    std::vector<int64_t> out, in;
    std::vector<float> sent, expected;
    for (int peer = 0; peer < size; ++peer) {
      out.push_back(count(rank, peer));
      in.push_back(count(peer, rank));
      for (int64_t i = 0; i < out.back(); ++i) sent.push_back(value(rank, peer, i));
      for (int64_t i = 0; i < in.back(); ++i) expected.push_back(value(peer, rank, i));
    }
    const OwnedTensor send = at.zeros<float>(std::ssize(sent)),
                      receive = at.zeros<float>(std::ssize(expected));
    at.put(sent, send.view);
    data.all_to_all_varied(send.view, out, receive.view, in);
    EXPECT_EQ(at.get<float>(receive.view), expected);
  });
}

TEST(DeviceComm, MessagesOfALaneArriveInOrderAndLanesDoNotWaitForEachOther) {
  for (Through through : all_ways) {
    for (int ranks = 2; ranks <= 4; ++ranks) {
      const DeviceTest test{.mesh = {.pipeline = ranks}, .through = through, .edges = ring_edges(ranks)};
      run_device_ranks(test, [](DeviceRank& at) {
        Communicator& line = *at.comms.pipeline;
        const int next = (line.rank() + 1) % line.size();
        const int before = (line.rank() + line.size() - 1) % line.size();
        const int64_t n = 11;
        std::vector<OwnedTensor> out, in;
        std::vector<Transfer> transfers;
        constexpr Lane lanes[] = {Lane::activation, Lane::gradient, Lane::control};
        for (int i = 0; i < 6; ++i) {
          out.push_back(at.zeros<float>(n));
          in.push_back(at.zeros<float>(n));
          at.put(values_of<float>(10 * line.rank() + i, n), out.back().view);
        }
        // Sends first, lane by lane; the receives come in another order of lanes: rendezvous sends that
        // waited for each other would never end.
        for (int i = 0; i < 6; ++i)
          transfers.push_back(line.isend(out[static_cast<size_t>(i)].view, next, lanes[i / 2]));
        for (int i : {4, 5, 2, 3, 0, 1})
          transfers.push_back(line.irecv(in[static_cast<size_t>(i)].view, before, lanes[i / 2]));
        for (Transfer& transfer : transfers) transfer.wait();
        for (int i = 0; i < 6; ++i)
          EXPECT_EQ(at.get<float>(in[static_cast<size_t>(i)].view), values_of<float>(10 * before + i, n));
      });
    }
  }
}

TEST(DeviceComm, EveryGroupOfAMeshSumsItsOwnRanks) {
  for (Through through : all_ways) {
    for (const Mesh mesh :
         {Mesh{.pipeline = 2, .data = 1, .tensor = 2}, Mesh{.pipeline = 2, .data = 3, .tensor = 1},
          Mesh{.pipeline = 1, .data = 2, .tensor = 3}}) {
      const DeviceTest test{.mesh = mesh, .through = through, .edges = ring_edges(mesh.pipeline)};
      run_device_ranks(test, [&](DeviceRank& at) {
        for (Axis axis : {Axis::tensor, Axis::data, Axis::pipeline}) {
          int64_t expected = 0;
          for (int rank : mesh.group(at.host.rank(), axis)) expected += 1 << rank;
          const OwnedTensor x = at.zeros<int64_t>(1);
          at.put(std::vector<int64_t>{1 << at.host.rank()}, x.view);
          at.comms.along(axis).all_reduce(x.view);
          EXPECT_EQ(at.get<int64_t>(x.view)[0], expected);
          EXPECT_EQ(at.comms.along(axis).rank(), index_along(mesh.coordinate_of(at.host.rank()), axis));
        }
        const OwnedTensor x = at.zeros<double>(1);
        at.put(std::vector<double>{1}, x.view);
        at.comms.world->all_reduce(x.view);
        EXPECT_EQ(at.get<double>(x.view)[0], mesh.world());
      });
    }
  }
}

TEST(DeviceComm, HostTensorsTravelThroughTheHost) {
  over_worlds([](DeviceRank& at) {
    std::vector<int64_t> count = {at.host.rank() + 1};
    at.comms.data->all_reduce(tensor_of(count));
    EXPECT_EQ(count[0], at.host.size() * (at.host.size() + 1) / 2);
    const OwnedTensor x = at.zeros<int64_t>(1);
    EXPECT_THROW(at.comms.data->all_gather(tensor_of(count), x.view), Error);
    at.compute.synchronize();
  });
}

TEST(DeviceComm, TrafficIsCountedAsTheHostCountsIt) {
  for (Through through : {Through::nccl, Through::host}) {
    run_device_ranks({.mesh = {.data = 3}, .through = through}, [](DeviceRank& at) {
      const OwnedTensor whole = at.zeros<float>(30'000), part = at.zeros<float>(10'000);
      at.comms.data->all_reduce(whole.view);
      at.comms.data->start_reduce_scatter(whole.view, part.view).wait();
      at.comms.data->all_gather(part.view, whole.view);
      const Traffic& traffic = at.comms.data->traffic();
      EXPECT_EQ(traffic[CommKind::all_reduce], (Traffic::Line{1, 4, 160'000}));
      EXPECT_EQ(traffic[CommKind::reduce_scatter], (Traffic::Line{1, 2, 80'000}));
      EXPECT_EQ(traffic[CommKind::all_gather].bytes, 80'000);
      at.compute.synchronize();  // before the tensors go
    });
  }
}

}  // namespace
}  // namespace ptrain
