#include <algorithm>
#include <chrono>
#include <thread>

#include "parallel/run/watch_roles.h"

namespace ptrain {
namespace {

constexpr double greeting_s = 5;  // for a stranger to say who it is
constexpr double answer_s = 0.5;  // beyond an interval, for the ranks to tell everything

}  // namespace

double interval_of(double timeout_s) {
  return std::clamp(timeout_s / 8, 0.05, 1.0);
}

std::vector<int> deputies_of(const std::vector<std::string>& hosts) {
  std::vector<int> deputies;
  for (int rank = 0; rank < std::ssize(hosts); ++rank) {
    const bool is_elsewhere = hosts[static_cast<size_t>(rank)] != hosts[0];
    if (rank < 2 || is_elsewhere) deputies.push_back(rank);
    if (is_elsewhere) break;
  }
  return deputies;
}

WatchChief::WatchChief(const WatchPlan& plan, int rank, const WatchEvents& events, double now_s)
    : plan_(plan), rank_(rank), events_(events), members_(static_cast<size_t>(plan.size)) {
  for (int other = 0; other < plan.size; ++other) {
    Member& member = members_[static_cast<size_t>(other)];
    member.state.rank = other;
    member.state.host = plan.hosts[static_cast<size_t>(other)];
    member.state.is_heard = false;
    member.heard_s = now_s;
  }
}

void WatchChief::succeed(int lost, const WatchState& last, double silent_s, double now_s) {
  Member& member = members_[static_cast<size_t>(lost)];
  note(member, last, now_s - silent_s);
  is_successor_ = true;
  collect_until_s_ = now_s + 2 * plan_.interval_s + answer_s;
}

void WatchChief::greet(const WatchState& own, double now_s) {
  for (Stranger& stranger : strangers_) {
    stranger.link.pump();
    const std::optional<Frame> frame = stranger.link.next();
    if (!frame) {
      if (now_s - stranger.since_s > greeting_s) stranger.link.close();
      continue;
    }
    FrameReader reader(frame->body);
    const auto key = reader.get<WatchKey>();
    const auto rank = reader.get<int32_t>();
    const bool is_ours = frame->kind == watch_hello && reader.is_good() && key == plan_.key && rank >= 0 &&
                         rank < plan_.size && rank != rank_;
    if (!is_ours) {
      stranger.link.close();
      continue;
    }
    Member& member = members_[static_cast<size_t>(rank)];
    member.link = std::move(stranger.link);
    stranger.link.close();
    member.link.send(watch_welcome, FrameWriter().put(plan_.key));
    member.link.send(watch_ack, to_frame(own, Detail::open));
    member.link.pump();
  }
  std::erase_if(strangers_, [](const Stranger& stranger) { return !stranger.link.is_open(); });
}

void WatchChief::note(Member& member, const WatchState& state, double now_s) {
  member.state.is_heard = true;
  member.state.ops = state.ops;
  member.time = state.time;
  member.heard_s = now_s;
  member.then_stalled_s = state.stalled_s;
}

void WatchChief::hear(Member& member, const WatchState& own, double now_s) {
  member.link.pump();
  while (const std::optional<Frame> frame = member.link.next()) {
    if (frame->kind == watch_bye) {
      member.state.has_left = true;
      return member.link.close();
    }
    const std::optional<WatchState> state = to_state(*frame);
    if (state && frame->kind == watch_neighbour && state->rank >= 0 && state->rank < plan_.size)
      members_[static_cast<size_t>(state->rank)].seen = state->ops;
    if (!state || (frame->kind != watch_beat && frame->kind != watch_state)) continue;
    // A beat says less than the whole state that came before it, and that is what the report is made of.
    const bool keeps_whole = frame->kind == watch_beat && is_urgent() && member.has_answered;
    const OpSnapshot whole = member.state.ops;
    note(member, *state, now_s);
    if (keeps_whole) member.state.ops = whole;
    member.has_answered = member.has_answered || frame->kind == watch_state;
    member.link.send(watch_ack, to_frame(own, Detail::open));
  }
  member.link.pump();
}

std::vector<RankState> WatchChief::states(double now_s) const {
  std::vector<RankState> all;
  for (const Member& member : members_) {
    RankState& state = all.emplace_back(member.state);
    const double since_s = now_s - member.heard_s;
    // Up to two beats are no silence.
    state.silent_s = state.rank == rank_ || since_s < 2 * plan_.interval_s ? 0 : since_s;
    state.stalled_s = member.then_stalled_s + since_s;
  }
  return all;
}

void WatchChief::run(const WatchState& own, double now_s, bool is_armed) {
  if (is_over_) return;
  Member& self = members_[static_cast<size_t>(rank_)];
  note(self, own, now_s);
  self.has_answered = true;
  greet(own, now_s);
  for (Member& member : members_) hear(member, own, now_s);
  if (!is_armed) return;
  judge_now(now_s);
  if (is_over_ || events_.note_slow == nullptr) return;
  std::vector<RankTime> times;
  for (const Member& member : members_) times.push_back(member.time);
  for (const SlowRank& slow : slow_.observe(times)) events_.note_slow(slow);
}

/// Of all that answer at all.
bool WatchChief::has_all_answers(const std::vector<RankState>& states) const {
  return std::ranges::all_of(states, [&](const RankState& state) {
    const bool is_silent = state.is_heard && state.silent_s >= plan_.timeout_s / 2;
    return state.has_left || is_silent || members_[static_cast<size_t>(state.rank)].has_answered;
  });
}

/// Whether it is this successor that lost the others, and not they the chief.
bool WatchChief::is_cut_off() const {
  const auto answers = std::ranges::count_if(members_, &Member::has_answered);
  return is_successor_ && 2 * (answers - 1) < plan_.size - 2;
}

void WatchChief::judge_now(double now_s) {
  std::vector<RankState> all = states(now_s);
  // 1. Is something wrong? Then everybody tells what it does, as far as it can.
  if (collect_until_s_ < 0) {
    if (!is_hang(all, plan_.timeout_s)) return;
    std::vector<int32_t> silent;
    for (const RankState& state : all)
      if (state.silent_s > 0) silent.push_back(state.rank);
    for (Member& member : members_) {
      member.has_answered = member.state.rank == rank_;
      member.seen.reset();
    }
    send_to_all(watch_collect, FrameWriter().put_all<int32_t>(silent));
    collect_until_s_ = now_s + plan_.interval_s + answer_s;
    return;
  }
  // 2. Is it still so, now that they have told?
  if (now_s < collect_until_s_ && !has_all_answers(all)) return;
  if (is_cut_off()) {
    is_over_ = true;
    return events_.leave("this rank is cut off from the one that watches over hangs and from most others");
  }
  look_at_silent(all);
  if (is_successor_ || is_hang(all, plan_.timeout_s)) return end_run(all);
  collect_until_s_ = -1;
  send_to_all(watch_calm);
}

/// What silent ranks last did is known better by who can read their memory than from their last beat.
void WatchChief::look_at_silent(std::vector<RankState>& states) const {
  for (RankState& state : states) {
    if (state.silent_s == 0) continue;
    std::optional<OpSnapshot> seen = members_[static_cast<size_t>(state.rank)].seen;
    if (!seen && events_.look_at) seen = events_.look_at(state.rank);
    if (!seen) continue;
    state.ops = *seen;
    state.is_exact = true;
  }
}

void WatchChief::send_to_all(WatchFrame frame, const FrameWriter& body) {
  for (Member& member : members_) {
    member.link.send(frame, body);
    member.link.pump();
  }
}

void WatchChief::end_run(const std::vector<RankState>& states) {
  is_over_ = true;
  events_.publish(judge(states, plan_.timeout_s));
  send_to_all(watch_leave);
  // A launcher ends the job with the first rank that leaves: the frames should be out by then.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  for (Member& member : members_) member.link.pump();
  events_.leave("");
}

void WatchChief::say_goodbye() {
  send_to_all(watch_bye);
}

}  // namespace ptrain
