#include "parallel/run/hang_report.h"

#include <gtest/gtest.h>

#include "parallel/run/watch_frames.h"

namespace ptrain {
namespace {

constexpr uint32_t tensor_0 = 10, tensor_1 = 11, world = 1;
constexpr double timeout_s = 5;

template <size_t N>
void put(char (&to)[N], const std::string& text) {
  text.copy(to, N - 1);
}

OpLine line(const std::string& name, OpWait wait, double age_s) {
  OpLine op{};
  put(op.name, name);
  op.wait = wait;
  op.layer = no_layer;
  op.chunk = op.micro = op.bucket = op.peer = -1;
  op.sequence = -1;
  op.age_s = age_s;
  op.took_s = -1;
  return op;
}

/// A rank of tensor 2 * pipeline 2 that is heard of and works at step 3.
RankState rank_of(int rank, double stalled_s = 0) {
  RankState state{.rank = rank, .host = rank < 2 ? "a" : "b", .stalled_s = stalled_s};
  put(state.ops.phase, "training");
  state.ops.step = 3;
  for (const auto& [id, name] :
       {std::pair{world, "world"}, std::pair{rank < 2 ? tensor_0 : tensor_1, "tensor"}}) {
    GroupLine group{.id = id, .size = id == world ? 4 : 2, .name = {}, .entered = 57};
    put(group.name, name);
    state.ops.groups.push_back(group);
  }
  return state;
}

void computes(RankState& state, const std::string& name, int micro, int layer) {
  OpLine op = line(name, OpWait::none, state.stalled_s);
  op.micro = micro;
  op.layer = layer;
  op.chunk = 0;
  state.ops.open.push_back(op);
}

/// Waits in the group's newest collective, which it has entered.
void waits_in(RankState& state, const std::string& name, uint32_t group) {
  OpLine op = line(name, OpWait::collective, state.stalled_s);
  op.group_id_is_known = 1;
  op.group_id = group;
  for (GroupLine& known : state.ops.groups)
    if (known.id == group) op.sequence = known.entered++;
  state.ops.open.push_back(op);
}

void waits_for_message(RankState& state, const std::string& name, OpWait wait, int peer) {
  OpLine op = line(name, wait, state.stalled_s);
  op.peer = peer;
  state.ops.open.push_back(op);
}

void expect_says(const HangReport& report, const std::vector<std::string>& words) {
  for (const std::string& word : words)
    EXPECT_NE(report.reason.find(word), std::string::npos) << word << " is not in:\n" << report.reason;
}

/// Rank 2 was stopped in its forward: rank 3 waits for it in an all-reduce, rank 0 for its gradient, rank 1
/// for rank 3's.
std::vector<RankState> stopped_rank_2() {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 4; ++rank) ranks.push_back(rank_of(rank, 5.1));
  ranks[2].silent_s = 5.2;
  computes(ranks[2], "forward", 1, 3);
  computes(ranks[3], "forward", 1, 3);
  waits_in(ranks[3], "all_reduce", tensor_1);
  computes(ranks[0], "receive gradient", 0, no_layer);
  waits_for_message(ranks[0], "receive", OpWait::receive, 2);
  computes(ranks[1], "receive gradient", 0, no_layer);
  waits_for_message(ranks[1], "receive", OpWait::receive, 3);
  return ranks;
}

TEST(HangReport, NamesTheSilentRankAndWhoWaitsForIt) {
  const std::vector<RankState> ranks = stopped_rank_2();
  ASSERT_TRUE(is_hang(ranks, timeout_s));
  const HangReport report = judge(ranks, timeout_s);
  EXPECT_EQ(report.rank, 2);
  EXPECT_EQ(report.host, "b");
  EXPECT_EQ(report.phase, "training");
  EXPECT_EQ(report.step, 3);
  expect_says(
      report,
      {"rank 2 on b has not answered for 5.2 s", "forward of micro-batch 1, layer 3",
       "rank 3 on b waits for rank 2 for 5.1 s: all_reduce 57 of tensor, in forward of micro-batch 1, layer "
       "3",
       "rank 0 on a waits for rank 2 for 5.1 s: receive from rank 2, in receive gradient of micro-batch 0",
       "rank 1 waits for others that wait"});
  ASSERT_EQ(report.ranks.size(), 4u);
  EXPECT_TRUE(report.ranks[2].is_culprit);
  EXPECT_EQ(report.ranks[3].waits_for, std::vector{2});
  EXPECT_EQ(report.ranks[1].waits_for, std::vector{3});
}

TEST(HangReport, AJobThatWorksIsNoHang) {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 4; ++rank) computes(ranks.emplace_back(rank_of(rank)), "forward", 0, 1);
  EXPECT_FALSE(is_hang(ranks, timeout_s));
  // Three wait for long while the fourth makes progress: it reads the data, say.
  for (int rank : {0, 1, 2}) {
    ranks[static_cast<size_t>(rank)].stalled_s = 900;
    waits_in(ranks[static_cast<size_t>(rank)], "all_gather", world);
  }
  EXPECT_FALSE(is_hang(ranks, timeout_s));
  ranks[3].stalled_s = timeout_s;
  EXPECT_TRUE(is_hang(ranks, timeout_s));
}

TEST(HangReport, WhoHasLeftIsNotMissed) {
  std::vector<RankState> ranks = {rank_of(0), rank_of(1)};
  ranks[1].has_left = true;
  ranks[1].silent_s = ranks[1].stalled_s = 1000;
  EXPECT_FALSE(is_hang(ranks, timeout_s));
  ranks[0].has_left = true;
  EXPECT_FALSE(is_hang(ranks, timeout_s));
}

TEST(HangReport, NamesTheRankThatIsBusyWithoutProgress) {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 4; ++rank) waits_in(ranks.emplace_back(rank_of(rank, 6)), "all_reduce", world);
  ranks[1].ops = rank_of(1).ops;
  put(ranks[1].ops.phase, "saving a checkpoint");
  ASSERT_TRUE(is_hang(ranks, timeout_s));
  const HangReport report = judge(ranks, timeout_s);
  EXPECT_EQ(report.rank, 1);
  EXPECT_EQ(report.phase, "saving a checkpoint");
  expect_says(report, {"rank 1 on a has made no progress for 6.0 s", "rank 0 on a waits for rank 1",
                       "all_reduce 57 of world"});
}

TEST(HangReport, NamesTheRanksOfACircle) {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 4; ++rank) ranks.push_back(rank_of(rank, 6));
  waits_for_message(ranks[0], "receive", OpWait::receive, 1);
  waits_in(ranks[1], "all_reduce", tensor_0);  // which rank 0 has not entered
  waits_for_message(ranks[2], "receive", OpWait::receive, 0);
  waits_for_message(ranks[3], "send", OpWait::send, 2);
  ASSERT_TRUE(is_hang(ranks, timeout_s));
  const HangReport report = judge(ranks, timeout_s);
  EXPECT_EQ(report.rank, 0);
  expect_says(report, {"ranks 0, 1 on a wait for each other", "rank 1 on a waits for rank 0",
                       "all_reduce 57 of tensor"});
  EXPECT_TRUE(report.ranks[1].is_culprit);
  EXPECT_FALSE(report.ranks[2].is_culprit);
}

TEST(HangReport, WhereEverybodyHasComeTheNetworkIsNamed) {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 4; ++rank) waits_in(ranks.emplace_back(rank_of(rank, 6)), "all_reduce", world);
  ASSERT_TRUE(is_hang(ranks, timeout_s));
  expect_says(judge(ranks, timeout_s), {"everybody has come", "all_reduce 57 of world", "is lost"});
}

TEST(HangReport, NamesWhoLeftWhileOthersWait) {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 4; ++rank) waits_in(ranks.emplace_back(rank_of(rank, 6)), "barrier", world);
  ranks[3] = rank_of(3);
  ranks[3].has_left = true;
  ASSERT_TRUE(is_hang(ranks, timeout_s));
  const HangReport report = judge(ranks, timeout_s);
  EXPECT_EQ(report.rank, 3);
  expect_says(report, {"rank 3 on b has left the run, and others wait"});
}

TEST(HangReport, ARankThatWaitsForItsDeviceWaitsForWhoEnqueuedFewer) {
  std::vector<RankState> ranks = {rank_of(0, 6), rank_of(1, 6)};
  for (RankState& state : ranks) state.ops.open.push_back(line("wait for the device", OpWait::device, 6));
  ranks[0].ops.groups[1].entered += 2;
  EXPECT_EQ(waits_for(ranks, 0), std::vector{1});
  EXPECT_TRUE(waits_for(ranks, 1).empty());
  expect_says(judge(ranks, timeout_s),
              {"everybody has come", "wait for the device", "rank 0 on a waits for rank 1"});
}

TEST(HangReport, OfAHostThatDiesAllRanksAreNamed) {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 16; ++rank) {
    RankState& state = ranks.emplace_back(RankState{.rank = rank, .host = rank < 8 ? "a" : "b"});
    state.ops = rank_of(0).ops;
    state.stalled_s = 6;
    if (rank >= 8) state.silent_s = 4.2 + 0.1 * rank;
    if (rank < 8) waits_in(state, "all_reduce", world);
    if (rank == 9) state.is_heard = false;
  }
  const HangReport report = judge(ranks, timeout_s);
  EXPECT_EQ(report.rank, 8);
  expect_says(report, {"ranks 8 to 15 on b have not answered", "rank 7 on a waits for ranks 8 to 15"});
}

TEST(HangReport, ASilentRankMayBelongToAGroupThatItHadNotToldOf) {
  std::vector<RankState> ranks = stopped_rank_2();
  ranks[2].ops.groups.pop_back();
  EXPECT_EQ(waits_for(ranks, 3), std::vector{2});
  ranks[2].is_exact = true;  // its memory says that it is not in that group
  EXPECT_TRUE(waits_for(ranks, 3).empty());
  expect_says(judge(ranks, timeout_s), {"it stands in: training, step 3: forward of micro-batch 1, layer 3"});
}

TEST(HangReport, StaysReadableForManyRanks) {
  std::vector<RankState> ranks;
  for (int rank = 0; rank < 1024; ++rank) {
    waits_in(ranks.emplace_back(rank_of(0, 400)), "all_reduce", world);
    ranks.back().rank = rank;
  }
  ranks[700].ops = rank_of(0).ops;
  ranks[700].silent_s = 300;
  const HangReport report = judge(ranks, 300);
  EXPECT_EQ(report.rank, 700);
  EXPECT_LT(report.reason.size(), 2000u);
  expect_says(report, {"so do ranks 8 to 699, 701 to 1023"});
  EXPECT_EQ(report.ranks.size(), 1024u);
}

TEST(HangReport, SaysWhereInTheModel) {
  const auto text = [](int layer, int chunk, int bucket) {
    OpSnapshot ops;
    OpLine op = line("backward", OpWait::none, 1);
    op.micro = 2;
    op.layer = layer;
    op.chunk = chunk;
    op.bucket = bucket;
    ops.open.push_back(op);
    return doing(ops);
  };
  EXPECT_EQ(text(4, 0, -1), "backward of micro-batch 2, layer 4");
  EXPECT_EQ(text(embedding_layer, 0, -1), "backward of micro-batch 2, the embedding");
  EXPECT_EQ(text(head_layer, 1, 3), "backward of micro-batch 2, chunk 1, bucket 3, the head");
  EXPECT_EQ(doing({}), "nothing that is noted");
}

TEST(HangReport, WritesRanksAsRuns) {
  EXPECT_EQ(to_text(std::vector<int>{}), "");
  EXPECT_EQ(to_text(std::vector{3}), "3");
  EXPECT_EQ(to_text(std::vector{0, 1}), "0, 1");
  EXPECT_EQ(to_text(std::vector{0, 1, 2, 5, 7, 8, 9}), "0 to 2, 5, 7 to 9");
}

// --- Frames ------------------------------------------------------------------------------------------------

TEST(WatchFrames, AStateTravelsWhole) {
  WatchState state{
      .stalled_s = 1.5, .time = {.steps = 40, .median_s = 0.25, .weight = 3, .stage = 2}, .ops = {}};
  RankState rank = stopped_rank_2()[3];
  state.ops = rank.ops;
  state.ops.recent.push_back(line("send", OpWait::none, 2));
  const Frame all{watch_state, to_frame(state, Detail::all).bytes()};
  const auto back = to_state(all);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->stalled_s, 1.5);
  EXPECT_EQ(back->time.steps, 40);
  EXPECT_EQ(back->time.stage, 2);
  EXPECT_EQ(back->ops.step, 3);
  EXPECT_STREQ(back->ops.phase, "training");
  EXPECT_EQ(doing(back->ops), doing(state.ops));
  EXPECT_EQ(back->ops.groups.size(), 2u);
  EXPECT_EQ(back->ops.recent.size(), 1u);
  EXPECT_TRUE(to_state({watch_beat, to_frame(state, Detail::open).bytes()})->ops.recent.empty());
}

TEST(WatchFrames, WhatIsCutOrMadeUpIsNoState) {
  WatchState state;
  state.ops = stopped_rank_2()[3].ops;
  const std::vector<char> whole = to_frame(state, Detail::all).bytes();
  for (size_t length = 0; length < whole.size(); ++length)
    ASSERT_FALSE(to_state({watch_state, {whole.begin(), whole.begin() + static_cast<int64_t>(length)}}))
        << length;
  EXPECT_FALSE(to_state({watch_state, std::vector<char>(200, '\xff')}));
}

}  // namespace
}  // namespace ptrain
