// Where training's lines go: on a terminal one line that replaces itself, elsewhere plain lines.
#pragma once

#include <functional>
#include <string_view>

#include "src/train/metrics.h"

namespace ptrain {

class Terminal {
 public:
  enum class StartedBy { hand, launcher };

  /// Looks at where stdout ends. `term`: the variable TERM; null or "dumb": plain lines.
  Terminal(const char* term, StartedBy started_by);
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal();  // leaves the cursor below the line

  /// A line that stays; a warning, once, where it cannot be written.
  void say(std::string_view line);
  /// What shows a step, or nothing where lines are plain.
  std::function<void(const StepResult&, const RunProgress&)> step_shower();

 private:
  void clear();

  bool is_live_;  // stdout is a terminal that moves its cursor
  bool has_line_ = false;
  bool is_mute_ = false;  // stdout could not be written, which has been said
};

}  // namespace ptrain
