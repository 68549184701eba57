#include "parallel/comm/op_ring.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "kernels/base/progress.h"
#include "parallel/comm/mesh_comms.h"
#include "parallel/comm/shared_ring.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

Op named(const char* name, int micro = -1) {
  return {.name = name, .micro = micro};
}

/// Waits, at most half a minute, until it holds.
template <class Condition>
bool comes_true(const Condition& condition) {
  for (int i = 0; i < 30'000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return condition();
}

TEST(OpRing, ShowsWhatIsOpenFromTheOutsideInAndWhatHasEnded) {
  OpRing ring;
  ring.set_phase("training", false);
  ring.set_step(7);
  const OpNote outer(&ring, named("forward", 3));
  ring.at_layer(5);
  { const OpNote ended(&ring, named("send")); }
  ring.mark(named("posted", 4));
  const OpNote inner(&ring, {.name = "receive", .wait = OpWait::receive, .peer = 2});
  const OpSnapshot shown = ring.snapshot();
  EXPECT_STREQ(shown.phase, "training");
  EXPECT_EQ(shown.step, 7);
  ASSERT_EQ(shown.open.size(), 2u);
  EXPECT_STREQ(shown.open[0].name, "forward");
  EXPECT_EQ(shown.open[0].micro, 3);
  EXPECT_EQ(shown.open[0].layer, 5);  // is not lost when something begins inside
  EXPECT_STREQ(shown.open[1].name, "receive");
  EXPECT_EQ(shown.open[1].peer, 2);
  EXPECT_LT(shown.open[1].took_s, 0);
  EXPECT_LE(shown.open[1].age_s, shown.open[0].age_s);
  ASSERT_EQ(shown.recent.size(), 2u);
  EXPECT_STREQ(shown.recent[0].name, "send");
  EXPECT_STREQ(shown.recent[1].name, "posted");
  EXPECT_GE(shown.recent[0].took_s, 0);
}

TEST(OpRing, KeepsTheNewestAndForgetsTheOldest) {
  OpRing ring;
  for (int i = 0; i < 3 * OpRing::size + 5; ++i) const OpNote note(&ring, named("op", i));
  const OpSnapshot shown = ring.snapshot();
  ASSERT_EQ(shown.recent.size(), static_cast<size_t>(OpRing::size));
  for (int i = 0; i < OpRing::size; ++i)
    EXPECT_EQ(shown.recent[static_cast<size_t>(i)].micro, 2 * OpRing::size + 5 + i);
}

TEST(OpRing, NestingDeeperThanItKeepsIsCountedRight) {
  OpRing ring;
  for (int i = 0; i < OpRing::max_depth + 3; ++i) ring.begin(named("deep", i));
  EXPECT_EQ(ring.snapshot().open.size(), static_cast<size_t>(OpRing::max_depth));
  for (int i = 0; i < OpRing::max_depth + 2; ++i) ring.end();
  const OpSnapshot shown = ring.snapshot();
  ASSERT_EQ(shown.open.size(), 1u);
  EXPECT_EQ(shown.open[0].micro, 0);
}

TEST(OpRing, EveryNoteIsProgressAndSignsOfLifeAreInLongPhases) {
  OpRing ring;
  const auto moves = [&](const auto& action) {
    const uint64_t before = ring.progress();
    action();
    return ring.progress() != before;
  };
  EXPECT_TRUE(moves([&] { ring.begin(named("a")); }));
  EXPECT_TRUE(moves([&] { ring.at_layer(1); }));
  EXPECT_TRUE(moves([&] { ring.end(); }));
  EXPECT_TRUE(moves([&] { ring.moved(); }));
  ring.set_phase("loading", true);
  EXPECT_TRUE(moves([] { progress::tick(); }));
  ring.set_phase("training", false);
  EXPECT_FALSE(moves([] { progress::tick(); }));
  EXPECT_FALSE(moves([] {}));
}

TEST(OpRing, GroupsComeAndGo) {
  OpRing ring;
  for (int i = 0; i < 1000; ++i) {
    const int group = ring.add_group(7, "tensor", 2);
    ASSERT_GE(group, 0);
    ring.enter(group);
    ASSERT_EQ(ring.snapshot().groups.at(0).entered, 1);  // not those of who was here before
    ring.remove_group(group);
  }
  EXPECT_TRUE(ring.snapshot().groups.empty());
  for (int i = 0; i < OpRing::max_groups; ++i) EXPECT_EQ(ring.add_group(1, "many", 2), i);
  EXPECT_EQ(ring.add_group(1, "one too many", 2), -1);
  ring.enter(-1);
}

TEST(OpRing, CanBeReadWhileItIsWritten) {
  OpRing ring;
  std::atomic<bool> is_over = false;
  std::thread reader([&] {
    while (!is_over) {
      const OpSnapshot shown = ring.snapshot();
      for (const OpLine& line : shown.open) ASSERT_TRUE(std::string(line.name).starts_with("op"));
      for (const OpLine& line : shown.recent) ASSERT_TRUE(std::string(line.name).starts_with("op"));
    }
  });
  for (int i = 0; i < 200'000; ++i) {
    const OpNote outer(&ring, named("op outside", i));
    const OpNote inner(&ring, named("op inside", i));
  }
  is_over = true;
  reader.join();
}

TEST(OpRing, ANoteCostsFarLessThanAMessage) {
  OpRing ring;
  constexpr int notes = 200'000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < notes; ++i) const OpNote note(&ring, named("op", i));
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  RecordProperty("ns_per_note", std::to_string(took.count() / notes));
  std::printf("%.0f ns for a note's begin and end\n", took.count() / notes);
  EXPECT_LT(took.count() / notes, 20'000);  // a hundred times what it takes on an idle core
}

// --- In memory that other processes read -------------------------------------------------------------------

TEST(SharedRing, AnotherProcessSeesWhatAStoppedOneDoes) {
  SharedRing shared;
  ASSERT_NE(shared.address(), "");
  OpRing& ring = shared.ring();
  ring.set_phase("training", false);
  ring.set_step(9);
  const OpNote note(&ring, named("forward", 2));
  // A child that knows the address alone.
  const pid_t child = fork();
  if (child == 0) {
    const RingMemory memory = open_ring(shared.address());
    const OpSnapshot shown = memory.data() == nullptr ? OpSnapshot{} : memory.ring()->snapshot();
    const bool is_right = shown.open.size() == 1 && std::string(shown.open[0].name) == "forward" &&
                          shown.open[0].micro == 2 && shown.step == 9 &&
                          std::string(shown.phase) == "training";
    _exit(is_right ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(SharedRing, WhatIsNotThisRingIsNotOpened) {
  const SharedRing shared;
  EXPECT_EQ(open_ring("").data(), nullptr);
  EXPECT_EQ(open_ring("1 0 ptrain-ring-1-1").data(), nullptr);
  EXPECT_EQ(open_ring(shared.address() + "0").data(), nullptr);
  EXPECT_EQ(open_ring("nonsense").data(), nullptr);
}

// --- Fed by communicators ----------------------------------------------------------------------------------

TEST(OpRing, ShowsTheCollectiveThatARankWaitsInAndWhoHasNotEntered) {
  run_ranks(4, [](Communicator& world) {
    const Mesh mesh{.pipeline = 2, .data = 1, .tensor = 2};
    OpRing ring;
    world.set_op_ring(&ring);
    {
      const MeshComms comms = make_mesh_comms(world, mesh);
      float value = 1;
      comms.tensor->all_reduce(Tensor(&value, {1}, DType::f32));
      // Rank 3 comes late; rank 2 is seen waiting meanwhile, from another thread.
      std::atomic<bool> is_seen = false;
      std::thread watcher([&] {
        if (world.rank() != 2) return;
        EXPECT_TRUE(comes_true([&] { return !ring.snapshot().open.empty(); }));
        const OpSnapshot shown = ring.snapshot();
        is_seen = true;
        ASSERT_EQ(shown.open.size(), 1u);
        const OpLine& op = shown.open[0];
        EXPECT_STREQ(op.name, "all_reduce");
        EXPECT_EQ(op.wait, OpWait::collective);
        EXPECT_EQ(op.sequence, 1);
        const GroupLine& group = shown.groups.at(1);
        EXPECT_STREQ(group.name, "tensor");
        EXPECT_EQ(group.id, op.group_id);
        EXPECT_EQ(group.size, 2);
        EXPECT_EQ(group.entered, 2);
      });
      if (world.rank() == 3) std::this_thread::sleep_for(std::chrono::milliseconds(300));
      comms.tensor->all_reduce(Tensor(&value, {1}, DType::f32));
      watcher.join();
      EXPECT_EQ(is_seen, world.rank() == 2);
    }
    EXPECT_EQ(ring.snapshot().groups.size(), 1u);  // the world alone is left
    world.set_op_ring(nullptr);
    world.barrier();
  });
}

TEST(OpRing, ShowsWhoseMessageARankWaitsForByItsNumberInTheWorld) {
  run_ranks(4, [](Communicator& world) {
    OpRing ring;
    world.set_op_ring(&ring);
    const auto pair = world.split(world.rank() % 2, world.rank());  // 0, 2 and 1, 3
    float value = 0;
    const Tensor tensor(&value, {1}, DType::f32);
    if (pair->rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      pair->isend(tensor, 0, Lane::gradient).wait();
    } else {
      pair->irecv(tensor, 1, Lane::gradient).wait();
      const std::vector<OpLine> ended = ring.snapshot().recent;
      const auto it = std::ranges::find(ended, OpWait::receive, &OpLine::wait);
      ASSERT_NE(it, ended.end());
      EXPECT_STREQ(it->name, "receive");
      EXPECT_EQ(it->peer, world.rank() + 2);
      EXPECT_GT(it->took_s, 0);
    }
    world.barrier();
    world.set_op_ring(nullptr);
  });
}

TEST(OpRing, GroupsHaveOneNumberOnAllTheirRanksAndAnotherThanOthers) {
  run_ranks(4, [](Communicator& world) {
    const auto first = world.split(world.rank() / 2, 0), second = world.split(world.rank() / 2, 0);
    std::vector<int64_t> mine = {first->id(), second->id(), world.id()}, all(12);
    world.all_gather(Tensor(mine.data(), {3}, DType::i64), Tensor(all.data(), {12}, DType::i64));
    const auto of = [&](int rank, int which) { return all[static_cast<size_t>(3 * rank + which)]; };
    for (int which : {0, 1}) {
      EXPECT_EQ(of(0, which), of(1, which));
      EXPECT_EQ(of(2, which), of(3, which));
      EXPECT_NE(of(0, which), of(2, which));
      EXPECT_NE(of(0, which), of(0, 2));
    }
    EXPECT_NE(of(0, 0), of(0, 1));
    EXPECT_EQ(of(0, 2), of(3, 2));
  });
}

}  // namespace
}  // namespace ptrain
