// The seconds that a rank waits for others, on clocks that only waiting moves.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>

#include "parallel/comm/self_comm.h"
#include "parallel/comm/thread_wire.h"
#include "parallel/comm/wired_comm.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

/// Messages between threads; each time that nothing moves, the rank's clock goes on by 0.25 s.
class SleepyWire final : public Wire {
 public:
  SleepyWire(std::unique_ptr<Wire> inner, std::atomic<double>& clock_s)
      : inner_(std::move(inner)), clock_s_(clock_s) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  int post_send(const void* data, int64_t bytes, int peer, int tag) override {
    return inner_->post_send(data, bytes, peer, tag);
  }
  int post_receive(void* data, int64_t bytes, int peer, int tag) override {
    return inner_->post_receive(data, bytes, peer, tag);
  }
  bool is_done(int ticket) const override { return inner_->is_done(ticket); }
  void release(int ticket) noexcept override { inner_->release(ticket); }
  void progress() override { inner_->progress(); }
  void relax(int) override {
    clock_s_ = clock_s_ + 0.25;
    std::this_thread::yield();  // not the inner one, which would notice that another rank holds its message
                                // back
  }
  std::unique_ptr<Wire> split(int color, std::span<const int> members) override {
    std::unique_ptr<Wire> part = inner_->split(color, members);
    return part != nullptr ? std::make_unique<SleepyWire>(std::move(part), clock_s_) : nullptr;
  }

 private:
  std::unique_ptr<Wire> inner_;
  std::atomic<double>& clock_s_;
};

TEST(Waited, IsWhatTheClockSaysOfEveryWaitOnAllCommunicatorsOfARank) {
  constexpr int ranks = 2;
  const auto threads = std::make_shared<ThreadWorld>(ranks);
  std::array<std::atomic<double>, ranks> clocks_s{};
  std::array<double, ranks> waited_s{};
  std::atomic<int> has_split = 0;
  const auto body = [&](int rank) {
    std::atomic<double>& clock_s = clocks_s[static_cast<size_t>(rank)];
    WiredCommunicator world(
        std::make_unique<SleepyWire>(std::make_unique<ThreadWire>(threads, rank), clock_s),
        [&clock_s] { return clock_s.load(); });
    const std::unique_ptr<Communicator> group = world.split(0, ranks - rank);
    ++has_split;
    while (has_split < ranks) std::this_thread::yield();
    const double before_s = clock_s;
    EXPECT_EQ(world.waited_s(), before_s) << "to split is to wait";
    // 1. Computing is not waiting.
    clock_s = clock_s + 1000;
    // 2. Rank 1 sends once it has seen rank 0 wait for three seconds; then both sum.
    float message = 1;
    const Tensor tensor(&message, {1}, DType::f32);
    if (rank == 0) {
      group->irecv(tensor, 0, Lane::gradient).wait();  // rank 1 of the world is rank 0 of the group
      EXPECT_GE(world.waited_s() - before_s, 3);
    } else {
      const double begin_s = clocks_s[0];
      while (clocks_s[0] < begin_s + 1003.25) std::this_thread::yield();
      group->isend(tensor, 1, Lane::gradient).wait();
    }
    group->all_reduce(tensor);
    world.barrier();
    EXPECT_EQ(group->waited_s(), world.waited_s());
    waited_s[static_cast<size_t>(rank)] = world.waited_s();
    threads->leave(rank);
  };
  {
    std::jthread other([&] { body(1); });
    body(0);
  }
  for (size_t rank = 0; rank < ranks; ++rank) EXPECT_EQ(waited_s[rank], clocks_s[rank] - 1000) << rank;
}

TEST(Waited, ARankAloneNeverWaits) {
  const std::unique_ptr<Communicator> alone = make_self_communicator();
  float value = 1;
  alone->all_reduce(Tensor(&value, {1}, DType::f32));
  alone->barrier();
  EXPECT_EQ(alone->waited_s(), 0);
}

}  // namespace
}  // namespace ptrain
