#include <algorithm>

#include "kernels/base/error.h"
#include "parallel/run/watch_roles.h"

namespace ptrain {
namespace {

constexpr double connect_s = 2;  // for an address to answer
// A chief that asked for everything has this long to write its report; then everybody leaves by itself.
constexpr double patience_s = 10;

}  // namespace

WatchMember::WatchMember(const WatchPlan& plan, int rank, const WatchEvents& events, double now_s)
    : plan_(plan), rank_(rank), events_(events), heard_s_(now_s) {}

std::string WatchMember::tried() const {
  std::string text;
  for (const std::string& address : plan_.deputies[chief_].addresses)
    text += fmt::format("{}{}:{}", text.empty() ? "" : ", ", address, plan_.deputies[chief_].port);
  return text;
}

/// Tries the chief's addresses in turn; the one that answered with the key stays.
void WatchMember::reach_out(double now_s) {
  if (link_.is_open() && (is_welcome_ || now_s - tried_s_ < connect_s)) return;
  const WatchPlan::Deputy& chief = plan_.deputies[chief_];
  if (tried_s_ >= 0 && !is_welcome_) address_ = (address_ + 1) % chief.addresses.size();
  if (tried_s_ >= 0 && now_s - tried_s_ < 0.05) return;  // refused at once: not in a busy loop
  is_welcome_ = false;
  tried_s_ = now_s;
  told_s_ = -1;
  link_ = WatchLink::connect(chief.addresses[address_], chief.port);
  link_.send(watch_hello, FrameWriter().put(plan_.key).put(static_cast<int32_t>(rank_)));
}

void WatchMember::run(const WatchState& own, double now_s) {
  if (is_over_ || must_succeed_) return;
  reach_out(now_s);
  if (is_welcome_ && (told_s_ < 0 || now_s - told_s_ >= plan_.interval_s)) {
    told_s_ = now_s;
    link_.send(has_alarm_ ? watch_state : watch_beat, to_frame(own, has_alarm_ ? Detail::all : Detail::open));
  }
  link_.pump();
  hear(own, now_s);
  link_.pump();
  if (is_over_) return;
  if (leave_at_s_ >= 0 && now_s >= leave_at_s_)
    return leave("the rank that found a hang did not finish its report");
  const double limit_s = has_alarm_ ? std::min(plan_.timeout_s, patience_s) : plan_.timeout_s;
  if (now_s - heard_s_ >= limit_s) turn_to_next(now_s);
}

void WatchMember::leave(const std::string& why) {
  is_over_ = true;
  link_.close();
  events_.leave(why);
}

void WatchMember::hear(const WatchState& own, double now_s) {
  while (const std::optional<Frame> frame = link_.next()) {
    if (frame->kind == watch_welcome) {
      FrameReader reader(frame->body);
      is_welcome_ = reader.get<WatchKey>() == plan_.key;
      if (!is_welcome_) return link_.close();  // a stranger at an address that two networks have
    }
    if (!is_welcome_) continue;
    heard_s_ = now_s;
    switch (frame->kind) {
      case watch_ack:
        if (const std::optional<WatchState> state = to_state(*frame)) chief_state_ = *state;
        break;
      case watch_collect:
        tell_all(own, *frame);
        leave_at_s_ = now_s + patience_s;
        break;
      case watch_calm:
        leave_at_s_ = -1;
        break;
      case watch_leave:
        return leave("");
      case watch_bye:
        is_over_ = true;
        return link_.close();
      default:
        break;
    }
  }
}

/// Its own state, and what it can see of the silent ranks that are named.
void WatchMember::tell_all(const WatchState& own, const Frame& wanted) {
  FrameReader reader(wanted.body);
  for (const int32_t rank : reader.get_all<int32_t>(static_cast<uint32_t>(plan_.size))) {
    const auto seen = events_.look_at ? events_.look_at(rank) : std::nullopt;
    if (seen) link_.send(watch_neighbour, to_frame({.rank = rank, .time = {}, .ops = *seen}, Detail::all));
  }
  link_.send(watch_state, to_frame(own, Detail::all));
}

void WatchMember::turn_to_next(double now_s) {
  if (!has_alarm_) lost_heard_s_ = heard_s_;
  has_alarm_ = true;
  if (++chief_ == plan_.deputies.size()) {
    --chief_;
    return leave("no rank that watches over hangs answers");
  }
  must_succeed_ = plan_.deputies[chief_].rank == rank_;
  address_ = 0;
  tried_s_ = -1;
  is_welcome_ = false;
  heard_s_ = now_s;
  link_.close();
}

void WatchMember::say_goodbye() {
  link_.send(watch_bye);
  link_.pump();
}

}  // namespace ptrain
