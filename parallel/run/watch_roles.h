// The two roles of a watchdog: the chief, who hears of all ranks and decides, and the others, who tell it and
// notice when it is gone. They run on the watchdog's thread and take the time as an argument. Not for threads
// (watchdog) nor for who is to blame (hang_report).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "parallel/run/watch_frames.h"

namespace ptrain {

/// Who watches and where: the same on all ranks.
struct WatchPlan {
  /// A rank that may be chief, and how it can be reached.
  struct Deputy {
    int rank = 0;
    int port = 0;
    std::vector<std::string> addresses;
  };
  int size = 1;
  std::vector<std::string> hosts;  // [rank]
  std::vector<Deputy> deputies;    // the first is chief; whoever loses the chief turns to the next
  WatchKey key{};
  double timeout_s = 300;
  double interval_s = 1;  // between two beats of a rank
};

/// Seconds between beats: often enough to find a hang within the timeout and 2 s.
double interval_of(double timeout_s);
/// rank 0, rank 1 and the first rank of another host.
std::vector<int> deputies_of(const std::vector<std::string>& hosts);

/// What the roles do to the rest of the world.
struct WatchEvents {
  std::function<void(const HangReport&)> publish;            // by the chief, once
  std::function<void(const std::string& why)> leave;         // by everybody: the run is over
  std::function<void(const SlowRank&)> note_slow = nullptr;  // by the chief
  /// What a rank of this host does, from its memory; nothing where that cannot be read.
  std::function<std::optional<OpSnapshot>(int rank)> look_at = nullptr;
};

class WatchChief {
 public:
  WatchChief(const WatchPlan& plan, int rank, const WatchEvents& events, double now_s);

  /// Takes the place of a chief that fell silent, of which `last` is the last that was heard.
  void succeed(int lost, const WatchState& last, double silent_s, double now_s);
  void take(WatchLink link, double now_s) { strangers_.push_back({std::move(link), now_s}); }
  /// Hears everybody, judges, and ends the run where there is a hang. own: this rank's state. is_armed:
  /// whether it may judge yet.
  void run(const WatchState& own, double now_s, bool is_armed);
  /// Whether an answer is waited for: the next run() is urgent.
  bool is_urgent() const { return collect_until_s_ >= 0; }
  void say_goodbye();

 private:
  struct Stranger {
    WatchLink link;
    double since_s;
  };
  struct Member {
    WatchLink link;
    RankState state;
    RankTime time;
    double heard_s = 0;         // when
    double then_stalled_s = 0;  // how long it had stalled then
    bool has_answered = false;
    std::optional<OpSnapshot> seen;  // by a neighbour, once it was silent
  };

  void greet(const WatchState& own, double now_s);
  void hear(Member& member, const WatchState& own, double now_s);
  void note(Member& member, const WatchState& state, double now_s);
  void judge_now(double now_s);
  void look_at_silent(std::vector<RankState>& states) const;
  std::vector<RankState> states(double now_s) const;
  bool has_all_answers(const std::vector<RankState>& states) const;
  bool is_cut_off() const;
  void send_to_all(WatchFrame frame, const FrameWriter& body = {});
  void end_run(const std::vector<RankState>& states);

  const WatchPlan& plan_;
  int rank_;
  const WatchEvents& events_;
  std::vector<Member> members_;  // [rank], itself too
  std::vector<Stranger> strangers_;
  SlowRanks slow_;
  double collect_until_s_ = -1;
  bool is_successor_ = false;
  bool is_over_ = false;
};

class WatchMember {
 public:
  WatchMember(const WatchPlan& plan, int rank, const WatchEvents& events, double now_s);

  void run(const WatchState& own, double now_s);
  bool is_connected() const { return is_welcome_; }
  bool is_urgent() const { return !is_over_ && (leave_at_s_ >= 0 || has_alarm_ || !is_welcome_); }
  int socket() const { return link_.socket(); }
  /// The chief is silent, and this rank is the next one; it then has no use for this any more.
  bool must_succeed() const { return must_succeed_; }
  int lost_chief() const { return plan_.deputies[chief_ - 1].rank; }
  const WatchState& chief_state() const { return chief_state_; }
  double silent_s(double now_s) const { return now_s - lost_heard_s_; }
  /// What was tried and did not answer: "10.0.0.1:4711, 192.168.0.1:4711".
  std::string tried() const;
  void say_goodbye();

 private:
  void reach_out(double now_s);
  void hear(const WatchState& own, double now_s);
  void tell_all(const WatchState& own, const Frame& wanted);
  void turn_to_next(double now_s);
  void leave(const std::string& why);

  const WatchPlan& plan_;
  int rank_;
  const WatchEvents& events_;
  size_t chief_ = 0;    // of plan_.deputies
  size_t address_ = 0;  // of the chief's
  WatchLink link_;
  double tried_s_ = -1;  // when the connection set out
  double heard_s_ = 0;   // when the chief was heard last
  double lost_heard_s_ = 0;
  double told_s_ = -1;
  double leave_at_s_ = -1;  // the chief wanted to know everything: it decides until then
  bool is_welcome_ = false;
  bool has_alarm_ = false;  // a chief was lost: the next one is told everything at once
  bool is_over_ = false;    // the chief left in order, or this rank is about to leave
  bool must_succeed_ = false;
  WatchState chief_state_;
};

}  // namespace ptrain
