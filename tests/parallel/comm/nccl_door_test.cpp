// The door to NCCL, operation by operation. Emulated: what the fake promises. On GPUs: that the library keeps
// it, with one rank on one GPU and as many more as there are GPUs.
#include "parallel/comm/nccl_door.h"

#include <gtest/gtest.h>

#include "tests/support/device_ranks.h"

namespace ptrain {
namespace {

/// One rank with its library, a stream and a communicator of all ranks.
struct DoorRank {
  Communicator& host;
  Device device;
  Nccl& nccl;
  const Stream& stream;
  NcclComm& comm;

  template <class T>
  OwnedTensor on_device(const std::vector<T>& values) const {
    OwnedTensor tensor({std::ssize(values)}, dtype_of<T>, device);
    const Buffer staging = Buffer::staging(tensor.view.bytes(), device);
    std::memcpy(staging.data(), values.data(), static_cast<size_t>(tensor.view.bytes()));
    transfer(Tensor(staging.data(), tensor.view.shape, tensor.view.dtype), tensor.view, stream);
    stream.synchronize();
    return tensor;
  }
  template <class T>
  std::vector<T> back(const OwnedTensor& tensor) const {
    const Buffer staging = Buffer::staging(tensor.view.bytes(), device);
    transfer(tensor.view, Tensor(staging.data(), tensor.view.shape, tensor.view.dtype), stream);
    stream.synchronize();
    const auto* values = static_cast<const T*>(staging.data());
    return {values, values + tensor.view.numel()};
  }
};

NcclId shared_id(Communicator& host, Nccl& nccl) {
  NcclId id;
  if (host.rank() == 0) id = nccl.unique_id();
  host.broadcast(Tensor(id.bytes.data(), {std::ssize(id.bytes)}, DType::u8), 0);
  return id;
}

/// Runs body with one rank and with two, where the machine can.
void over_ranks(const NcclConfig& config, const std::function<void(DoorRank&)>& body) {
  if (const std::string why = why_not(Through::nccl, 1); !why.empty()) GTEST_SKIP() << why;
  for (int ranks : {1, 2}) {
    if (!why_not(Through::nccl, ranks).empty()) continue;
    const MakeNccl make = nccl_for_ranks(Through::nccl);
    run_thread_ranks(ranks, [&](Communicator& host) {
      const Device device = device_of(host.rank(), Through::nccl);
      const std::unique_ptr<Nccl> nccl = make();
      const Stream stream(device);
      const std::unique_ptr<NcclComm> comm =
          nccl->connect(shared_id(host, *nccl), host.rank(), host.size(), config);
      EXPECT_EQ(comm->rank(), host.rank());
      EXPECT_EQ(comm->size(), host.size());
      DoorRank at{host, device, *nccl, stream, *comm};
      body(at);
      stream.synchronize();
      EXPECT_EQ(comm->async_error(), "");
      host.barrier();  // nobody takes a communicator down that another one still uses
    });
  }
}

TEST(NcclDoor, CollectivesDoWhatTheyPromise) {
  over_ranks({}, [](DoorRank& at) {
    EXPECT_GE(at.nccl.version(), 21900);
    const int ranks = at.comm.size(), rank = at.comm.rank();
    const runtime::NativeStream stream = at.stream.native();
    const int64_t n = 1023;
    std::vector<float> mine(static_cast<size_t>(n * ranks)), sum(mine.size());
    for (size_t i = 0; i < mine.size(); ++i) {
      for (int r = 0; r < ranks; ++r) sum[i] += static_cast<float>(static_cast<int>(i % 97) * (r + 1));
      mine[i] = static_cast<float>(static_cast<int>(i % 97) * (rank + 1));
    }
    // 1. Sums in place, largest values, scattered sums.
    OwnedTensor x = at.on_device(mine);
    at.comm.all_reduce(x.view.data, x.view.data, x.view.numel(), DType::f32, Reduce::sum, stream);
    EXPECT_EQ(at.back<float>(x), sum);
    const OwnedTensor highest = at.on_device(std::vector<double>{rank + 1.5});
    at.comm.all_reduce(highest.view.data, highest.view.data, 1, DType::f64, Reduce::max, stream);
    EXPECT_EQ(at.back<double>(highest)[0], ranks + 0.5);
    x = at.on_device(mine);
    const OwnedTensor part = at.on_device(std::vector<float>(static_cast<size_t>(n)));
    at.comm.reduce_scatter(x.view.data, part.view.data, n, DType::f32, stream);
    EXPECT_EQ(at.back<float>(part), std::vector<float>(sum.begin() + rank * n, sum.begin() + (rank + 1) * n));
    // 2. Gathered and spread; bytes, whatever the dtype.
    const OwnedTensor ids = at.on_device(std::vector<int64_t>(5, rank + 7));
    const OwnedTensor all = at.on_device(std::vector<int64_t>(static_cast<size_t>(5 * ranks)));
    at.comm.all_gather(ids.view.data, all.view.data, 5, DType::i64, stream);
    std::vector<int64_t> expected;
    for (int r = 0; r < ranks; ++r) expected.insert(expected.end(), 5, r + 7);
    EXPECT_EQ(at.back<int64_t>(all), expected);
    at.comm.broadcast(ids.view.data, 5, DType::i64, ranks - 1, stream);
    EXPECT_EQ(at.back<int64_t>(ids), std::vector<int64_t>(5, ranks + 6));
  });
}

TEST(NcclDoor, MessagesOfAGroupDoNotWaitForEachOther) {
  over_ranks({}, [](DoorRank& at) {
    // Round a ring; a ring of one rank sends to itself.
    const int ranks = at.comm.size(), rank = at.comm.rank();
    const OwnedTensor out = at.on_device(std::vector<float>(300, static_cast<float>(rank)));
    const OwnedTensor in = at.on_device(std::vector<float>(300, -1.0F));
    at.comm.group_begin();
    at.comm.send(out.view.data, 300, DType::f32, (rank + 1) % ranks, at.stream.native());
    at.comm.receive(in.view.data, 300, DType::f32, (rank + ranks - 1) % ranks, at.stream.native());
    at.comm.group_end();
    EXPECT_EQ(at.back<float>(in), std::vector<float>(300, static_cast<float>((rank + ranks - 1) % ranks)));
  });
}

TEST(NcclDoor, PartsOfACommunicatorHaveTheirOwnSettings) {
  over_ranks({}, [](DoorRank& at) {
    const NcclConfig small{.min_ctas = 1, .max_ctas = 2};
    const std::unique_ptr<NcclComm> turned = at.comm.split(3, -at.comm.rank(), small);
    ASSERT_NE(turned, nullptr);
    EXPECT_EQ(turned->rank(), at.comm.size() - 1 - at.comm.rank());
    const OwnedTensor x = at.on_device(std::vector<float>{1});
    turned->all_reduce(x.view.data, x.view.data, 1, DType::f32, Reduce::sum, at.stream.native());
    EXPECT_EQ(at.back<float>(x)[0], static_cast<float>(at.comm.size()));
    EXPECT_EQ(at.comm.split(-1, 0, small), nullptr);
    at.host.barrier();
  });
}

TEST(NcclDoor, MemoryMayBeRegistered) {
  over_ranks({.min_ctas = 1, .max_ctas = 4, .traffic_class = 0}, [](DoorRank& at) {
    const OwnedTensor x = at.on_device(std::vector<float>(1 << 16, 2));
    // The library may decline, memory of cudaMalloc makes no window everywhere: either answer is right, an
    // error is not.
    at.comm.register_buffer(x.view.data, x.view.bytes(), Registration::local);
    at.comm.register_buffer(x.view.data, x.view.bytes(), Registration::symmetric);
    at.comm.all_reduce(x.view.data, x.view.data, x.view.numel(), DType::f32, Reduce::sum, at.stream.native());
    EXPECT_EQ(at.back<float>(x), std::vector<float>(1 << 16, static_cast<float>(2 * at.comm.size())));
  });
}

TEST(NcclDoor, ARankThatNeverComesIsAnErrorAndNotAHang) {
  if (const std::string why = why_not(Through::nccl, 1); !why.empty()) GTEST_SKIP() << why;
  const MakeNccl make = nccl_for_ranks(Through::nccl);
  device_of(0, Through::nccl);
  const std::unique_ptr<Nccl> nccl = make();
  const NcclId id = nccl->unique_id();
  try {
    nccl->connect(id, 0, 2, {.deadline_s = 0.5, .hosts = 3});
    ADD_FAILURE() << "connected to nobody";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::resources);
    for (const char* word : {"rank 0 of 2 ranks on 3 hosts", "another rank never came"})
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace ptrain
