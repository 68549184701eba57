// All schedules by name, for tests that hold for every one of them.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/error.h"
#include "parallel/plan/schedule.h"

namespace ptrain {

struct NamedSchedule {
  const char* name;
  int chunks;
  StageOrder order;
  Schedule (*make)(const StageMap&, int micros);

  StageMap map(int positions) const { return StageMap(positions, chunks, order); }
};

inline const std::vector<NamedSchedule>& all_schedules() {
  static const std::vector<NamedSchedule> schedules = {
      {"gpipe", 1, StageOrder::round, gpipe},
      {"1f1b", 1, StageOrder::round, one_f_one_b},
      {"interleaved", 2, StageOrder::round, interleaved},
      {"interleaved by 3", 3, StageOrder::round, interleaved},
      {"zero bubble H1", 1, StageOrder::round, zero_bubble_h1},
      {"zero bubble V", 2, StageOrder::there_and_back, zero_bubble_v},
  };
  return schedules;
}

inline const NamedSchedule& named_schedule(const std::string& name) {
  for (const NamedSchedule& named : all_schedules()) {
    if (named.name == name) return named;
  }
  fail(ExitCode::defect, "no schedule is called {}", name);
}

}  // namespace ptrain
