#include "kernels/base/fault.h"

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <deque>
#include <string>
#include <thread>

#include "kernels/base/error.h"

namespace ptrain::fault {
namespace {

struct Planted {
  std::string action;
  std::string point;
  int rank = -1;  // here and below: -1 = any
  int64_t step = -1;
  int64_t nth = -1;
  std::atomic<int64_t> reached = 0;
};

// Filled once, before threads exist; the counters alone change later.
std::deque<Planted> planted;
int own_rank = 0;

int64_t number_behind(std::string_view text, std::string_view spec) {
  int64_t number = -1;
  const auto [rest, bad] = std::from_chars(text.data(), text.data() + text.size(), number);
  check(bad == std::errc() && rest == text.data() + text.size() && number >= 0, ExitCode::usage,
        "PTRAIN_FAULT: \"{}\" in \"{}\" is not a number", text, spec);
  return number;
}

std::string_view cut(std::string_view& text, char at) {
  const size_t end = std::min(text.find(at), text.size());
  const std::string_view head = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return head;
}

void plant(std::string_view one) {
  const std::string_view spec = one;
  Planted& fault = planted.emplace_back();
  fault.action = cut(one, '@');
  fault.point = cut(one, ':');
  check(!fault.action.empty() && !fault.point.empty(), ExitCode::usage,
        "PTRAIN_FAULT: \"{}\" is not ACTION@POINT[:rankN][:stepN][:nthN]", spec);
  while (!one.empty()) {
    const std::string_view part = cut(one, ':');
    if (part.starts_with("rank")) {
      fault.rank = static_cast<int>(number_behind(part.substr(4), spec));
    } else if (part.starts_with("step")) {
      fault.step = number_behind(part.substr(4), spec);
    } else if (part.starts_with("nth")) {
      fault.nth = number_behind(part.substr(3), spec);
    } else {
      fail(ExitCode::usage, "PTRAIN_FAULT: \"{}\" in \"{}\" is none of rankN, stepN, nthN", part, spec);
    }
  }
  const bool sleeps = fault.action.starts_with("slow") && fault.action.size() > 4;
  if (sleeps) number_behind(std::string_view(fault.action).substr(4), spec);
}

bool is_due(Planted& fault, std::string_view name, int64_t step) {
  if (fault.point != name || (fault.rank >= 0 && fault.rank != own_rank)) return false;
  if (fault.step >= 0 && fault.step != step) return false;
  const int64_t time = fault.reached.fetch_add(1) + 1;
  return fault.nth < 0 || fault.nth == time;
}

}  // namespace

void arm(std::string_view spec, int rank) {
  planted.clear();
  own_rank = rank;
  while (!spec.empty()) plant(cut(spec, ','));
  detail::is_armed = !planted.empty();
}

void detail::reach(std::string_view name, int64_t step) {
  for (Planted& fault : planted) {
    const bool is_slow = fault.action.starts_with("slow");
    if (!is_slow && fault.action != "kill" && fault.action != "stop" && fault.action != "exit") continue;
    if (!is_due(fault, name, step)) continue;
    if (fault.action == "kill") kill(getpid(), SIGKILL);
    if (fault.action == "stop") kill(getpid(), SIGSTOP);
    if (fault.action == "exit") _exit(1);
    if (!is_slow) continue;
    const std::string_view time = std::string_view(fault.action).substr(4);
    const int64_t milliseconds = time.empty() ? 20 : number_behind(time, fault.action);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  }
}

bool detail::ask(std::string_view action, std::string_view name, int64_t step) {
  bool is_asked = false;
  for (Planted& fault : planted)
    if (fault.action == action && is_due(fault, name, step)) is_asked = true;
  return is_asked;
}

}  // namespace ptrain::fault
