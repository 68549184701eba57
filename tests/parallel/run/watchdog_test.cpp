// Watchdogs of ranks that are threads, on loopback; a rank that is stopped is one whose watchdog stands
// still.
#include "parallel/run/watchdog.h"

#include <atomic>
#include <chrono>
#include <mutex>

#include "kernels/base/progress.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

using std::chrono::milliseconds;

/// What all ranks together saw.
struct Seen {
  std::mutex mutex;
  std::vector<std::pair<int, HangReport>> reports;  // by which rank
  std::vector<std::string> reasons;                 // to leave
  std::atomic<int> left = 0;

  WatchEvents events(int rank) {
    return {.publish =
                [this, rank](const HangReport& report) {
                  const std::lock_guard lock(mutex);
                  reports.emplace_back(rank, report);
                },
            .leave =
                [this](const std::string& why) {
                  const std::lock_guard lock(mutex);
                  reasons.push_back(why);
                  ++left;
                }};
  }
};

const std::vector<std::string> hosts = {"a", "a", "b", "b"};

/// Waits, at most ten times what the goal allows.
template <class Condition>
bool comes_true(double timeout_s, const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(10 * (timeout_s + 2));
  while (!condition() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(milliseconds(5));
  return condition();
}

struct Case {
  std::string name;
  int stopped;  // rank
  int judge;    // rank that finds it
};

class Stopped : public testing::TestWithParam<Case> {};

TEST_P(Stopped, IsNamedByWhoWatchesAndAllOthersLeave) {
  constexpr double timeout_s = 1;
  const Case& what = GetParam();
  Seen seen;
  std::atomic<bool> is_frozen = false;
  std::atomic<int> done = 0;
  run_thread_ranks(4, [&](Communicator& world) {
    const int rank = world.rank();
    OpRing ring;
    world.set_op_ring(&ring);
    ring.set_phase("training", false);
    ring.set_step(5);
    Watchdog watchdog(world, hosts, ring,
                      {.timeout_s = timeout_s,
                       .events = seen.events(rank),
                       .is_frozen = rank == what.stopped ? &is_frozen : nullptr});
    ASSERT_EQ(watchdog.fault(), "");
    world.barrier();
    const OpNote note(&ring, {.name = "forward", .layer = 2, .micro = 1});
    if (rank == what.stopped) {
      // It has told that it is in its forward by then.
      for (int i = 0; i < 100; ++i) {
        ring.moved();
        std::this_thread::sleep_for(milliseconds(5));
      }
      is_frozen = true;
      EXPECT_TRUE(comes_true(timeout_s, [&] { return seen.left >= 3; })) << "rank " << rank;
    }
    // The others wait for it here, as in a step.
    world.barrier();
    is_frozen = false;
    EXPECT_TRUE(comes_true(timeout_s, [&] { return seen.left >= 3; }));
    ++done;
    world.set_op_ring(nullptr);
  });
  EXPECT_EQ(done, 4);
  ASSERT_EQ(seen.reports.size(), 1u);
  const auto& [judge, report] = seen.reports.front();
  EXPECT_EQ(judge, what.judge);
  EXPECT_EQ(report.rank, what.stopped);
  EXPECT_EQ(report.host, hosts[static_cast<size_t>(what.stopped)]);
  EXPECT_EQ(report.step, 5);
  for (const char* words : {"has not answered for", "forward of micro-batch 1, layer 2", "barrier"})
    EXPECT_NE(report.reason.find(words), std::string::npos) << words << " is not in:\n" << report.reason;
  EXPECT_EQ(report.ranks.size(), 4u);
  for (const HangReport::Line& line : report.ranks)
    EXPECT_EQ(line.waits_for, line.rank == what.stopped ? std::vector<int>{} : std::vector{what.stopped});
  for (const std::string& reason : seen.reasons) EXPECT_EQ(reason, "");
}

INSTANTIATE_TEST_SUITE_P(Watchdog, Stopped,
                         testing::Values(Case{"ARank", 2, 0}, Case{"TheNextInLine", 1, 0},
                                         Case{"TheOneThatWatches", 0, 1}),
                         [](const auto& info) { return info.param.name; });

TEST(Watchdog, NamesARankThatAnswersButStandsStill) {
  constexpr double timeout_s = 1;
  Seen seen;
  run_thread_ranks(3, [&](Communicator& world) {
    OpRing ring;
    world.set_op_ring(&ring);
    ring.set_phase("saving", true);
    const Watchdog watchdog(world, {}, ring, {.timeout_s = timeout_s, .events = seen.events(world.rank())});
    world.barrier();
    const OpNote note(&ring, {.name = "write"});
    const bool is_over = world.rank() != 1 || comes_true(timeout_s, [&] { return seen.left >= 3; });
    EXPECT_TRUE(is_over);
    world.barrier();
    world.set_op_ring(nullptr);
  });
  ASSERT_EQ(seen.reports.size(), 1u);
  EXPECT_EQ(seen.reports[0].second.rank, 1);
  EXPECT_NE(seen.reports[0].second.reason.find("has made no progress"), std::string::npos);
  EXPECT_EQ(seen.left, 3);
}

TEST(Watchdog, IsQuietWhileOneWorksForLongAndOthersWaitOrHaveLeft) {
  constexpr double timeout_s = 2;
  Seen seen;
  run_thread_ranks(4, [&](Communicator& world) {
    OpRing ring;
    world.set_op_ring(&ring);
    ring.set_phase("tokenizing", true);
    std::optional<Watchdog> watchdog;
    watchdog.emplace(world, hosts, ring,
                     WatchdogOptions{.timeout_s = timeout_s, .events = seen.events(world.rank())});
    world.barrier();
    if (world.rank() == 3) watchdog.reset();
    if (world.rank() == 1) {
      for (int i = 0; i < 300; ++i) {
        progress::tick();
        std::this_thread::sleep_for(milliseconds(10));
      }
    }
    world.barrier();  // three wait here for more than the timeout
    world.set_op_ring(nullptr);
  });
  EXPECT_TRUE(seen.reports.empty()) << seen.reports[0].second.reason;
  EXPECT_EQ(seen.left, 0);
}

TEST(Watchdog, AloneItWatchesItself) {
  Seen seen;
  run_thread_ranks(1, [&](Communicator& world) {
    OpRing ring;
    ring.set_phase("training", false);
    const Watchdog watchdog(world, {"here"}, ring, {.timeout_s = 0.3, .events = seen.events(0)});
    EXPECT_TRUE(comes_true(0.3, [&] { return seen.left == 1; }));
  });
  ASSERT_EQ(seen.reports.size(), 1u);
  EXPECT_EQ(seen.reports[0].second.rank, 0);
  EXPECT_EQ(seen.reports[0].second.host, "here");
}

TEST(Watchdog, TellsWhoIsSlow) {
  Seen seen;
  std::vector<SlowRank> slow;  // seen.mutex
  run_thread_ranks(3, [&](Communicator& world) {
    OpRing ring;
    Watchdog watchdog(world, {}, ring, {.timeout_s = 60, .events = seen.events(world.rank())});
    watchdog.set_peers(0, 1);
    int64_t is_over = 0;
    while (is_over == 0) {
      watchdog.note_step(world.rank() == 2 ? 0.03 : 0.01);
      std::this_thread::sleep_for(milliseconds(10));
      const std::vector<SlowRank> news = watchdog.new_slow_ranks();
      {
        const std::lock_guard lock(seen.mutex);
        slow.insert(slow.end(), news.begin(), news.end());
        is_over = world.rank() == 0 && !slow.empty() ? 1 : 0;
      }
      world.all_reduce(Tensor(&is_over, {1}, DType::i64), Reduce::max, SumOrder::ranks);
    }
  });
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].rank, 2);
  EXPECT_NEAR(slow[0].factor, 3, 1e-6);
}

// --- The roles by themselves, by a clock that the test sets ------------------------------------------------

WatchPlan plan_for(const WatchListener& listener, int size) {
  return {.size = size,
          .hosts = std::vector<std::string>(static_cast<size_t>(size), "a"),
          .deputies = {{.rank = 0, .port = listener.port(), .addresses = {"192.0.2.1", "127.0.0.1"}}},
          .key = {1, 2},
          .timeout_s = 10,
          .interval_s = 1};
}

TEST(WatchRoles, StrangersAreTurnedAway) {
  WatchListener listener = WatchListener::open();
  const WatchPlan plan = plan_for(listener, 2);
  Seen seen;
  const WatchEvents events = seen.events(0);
  WatchChief chief(plan, 0, events, 0);
  const auto answer_to = [&](const auto& say) {
    WatchLink stranger = WatchLink::connect("127.0.0.1", listener.port());
    say(stranger);
    double now_s = 0;
    std::optional<Frame> answer;
    comes_true(0, [&] {
      stranger.pump();
      if (WatchLink link = listener.accept(); link.is_open()) chief.take(std::move(link), now_s);
      chief.run({}, now_s += 0.2, false);
      if (!answer) answer = stranger.next();
      return answer.has_value() || !stranger.is_open();
    });
    return answer ? static_cast<int>(answer->kind) : -1;
  };
  const auto hello = [](WatchKey key, int32_t rank) {
    return [=](WatchLink& link) { link.send(watch_hello, FrameWriter().put(key).put(rank)); };
  };
  EXPECT_EQ(answer_to(hello({1, 2}, 1)), static_cast<int>(watch_welcome));
  EXPECT_EQ(answer_to(hello({1, 3}, 1)), -1);  // of another run
  EXPECT_EQ(answer_to(hello({1, 2}, 2)), -1);  // no such rank
  EXPECT_EQ(answer_to(hello({1, 2}, -1)), -1);
  EXPECT_EQ(answer_to([](WatchLink& link) { link.send(watch_beat); }), -1);
  EXPECT_EQ(answer_to([](WatchLink&) {}), -1);  // says nothing at all
}

TEST(WatchRoles, AMemberFindsTheAddressThatAnswers) {
  WatchListener listener = WatchListener::open();
  const WatchPlan plan = plan_for(listener, 2);
  Seen seen;
  const WatchEvents events = seen.events(0);
  WatchChief chief(plan, 0, events, 0);
  WatchMember member(plan, 1, events, 0);
  double now_s = 0;
  EXPECT_TRUE(comes_true(0, [&] {
    now_s += 0.05;  // the first address, of a network that is nowhere, is given up after two of its seconds
    if (WatchLink link = listener.accept(); link.is_open()) chief.take(std::move(link), now_s);
    chief.run({}, now_s, false);
    member.run({}, now_s);
    return member.is_connected();
  }));
  EXPECT_EQ(seen.left, 0);
}

TEST(WatchRoles, DeputiesAreOnTwoHostsWhereThereAreTwo) {
  EXPECT_EQ(deputies_of({"a"}), std::vector{0});
  EXPECT_EQ(deputies_of({"a", "a", "a"}), (std::vector{0, 1}));
  EXPECT_EQ(deputies_of({"a", "a", "b", "c"}), (std::vector{0, 1, 2}));
  EXPECT_EQ(deputies_of({"a", "b", "c"}), (std::vector{0, 1}));
}

TEST(WatchRoles, BeatsAreFrequentEnoughForTheTimeoutAndRareEnoughForAThousandRanks) {
  EXPECT_DOUBLE_EQ(interval_of(300), 1);
  EXPECT_DOUBLE_EQ(interval_of(4), 0.5);
  EXPECT_GE(interval_of(1), 0.05);
}

}  // namespace
}  // namespace ptrain
