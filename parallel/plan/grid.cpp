// Draws a simulated schedule as text; declared in simulate.h.
#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"
#include "parallel/plan/simulate.h"

namespace ptrain {
namespace {

size_t at(int index) {
  return static_cast<size_t>(index);
}

/// A compute action on the time axis; neighbouring segments of one backward are one bar.
struct Bar {
  std::string label;
  int begin = 0, end = 0;  // cells
};

/// Seconds that one cell stands for: the shortest whole forward or backward.
double cell_seconds(const Schedule& schedule, const Report& report) {
  double shortest_s = 0;
  for (size_t position = 0; position < schedule.programs.size(); ++position) {
    const auto& intervals = report.intervals[position];
    for (size_t i = 0; i < intervals.size(); ++i) {
      const Action& action = schedule.programs[position][i];
      const double length_s = intervals[i].end_s - intervals[i].begin_s;
      if (!is_compute(action.kind) || action.bucket >= 0 || length_s <= 0) continue;
      shortest_s = shortest_s == 0 ? length_s : std::min(shortest_s, length_s);
    }
  }
  return shortest_s;
}

std::vector<Bar> bars_of(const std::vector<Action>& program, const std::vector<Interval>& intervals,
                         double cell_s) {
  std::vector<Bar> bars;
  const auto cell = [&](double s) { return static_cast<int>(std::lround(s / cell_s)); };
  for (size_t i = 0; i < intervals.size(); ++i) {
    Action action = program[i];
    if (!is_compute(action.kind)) continue;
    const bool is_continued = action.bucket > 0;
    action.bucket = -1;
    if (is_continued && !bars.empty()) {
      bars.back().end = cell(intervals[i].end_s);
    } else {
      bars.push_back({to_string(action), cell(intervals[i].begin_s), cell(intervals[i].end_s)});
    }
  }
  return bars;
}

/// One line of cells: `F0 B0 -- F1`.
std::vector<std::string> cells_of(const std::vector<Bar>& bars, int count, size_t width) {
  std::vector<std::string> cells(at(count), std::string(width, ' '));
  for (const Bar& bar : bars) {
    for (int i = bar.begin; i < std::min(std::max(bar.end, bar.begin + 1), count); ++i) {
      std::string text = i == bar.begin ? bar.label : std::string(width - 1, '-');
      text.resize(width, ' ');
      cells[at(i)] = text;
    }
  }
  return cells;
}

}  // namespace

std::string grid(const Schedule& schedule, const StageMap& map, const Report& report, int columns) {
  const double cell_s = cell_seconds(schedule, report);
  if (cell_s <= 0) return "nothing is computed\n";

  // 1. Bars of every position and the size of the sheet.
  std::vector<std::vector<Bar>> lines;
  size_t width = 0;
  int count = 0;
  for (int position = 0; position < map.positions(); ++position) {
    lines.push_back(bars_of(schedule.programs[at(position)], report.intervals[at(position)], cell_s));
    for (const Bar& bar : lines.back()) {
      width = std::max(width, bar.label.size() + 1);
      count = std::max({count, bar.end, bar.begin + 1});
    }
  }
  const int is_stuck = report.is_complete ? 0 : 1;
  count += is_stuck;

  // 2. What fits: all of it, or the beginning and the end, where the bubbles are.
  constexpr int label_columns = 10;
  const int room = std::max(8, (columns - label_columns - 5) / static_cast<int>(width));
  const int head = count <= room ? count : room * 3 / 5;
  const int tail = count <= room ? 0 : room - head;
  constexpr int most_lines = 32;

  // 3. Lines.
  std::string text;
  for (int position = 0; position < map.positions(); ++position) {
    if (map.positions() > most_lines && position == most_lines / 2) {
      text +=
          fmt::format("{:>{}}  ({} stages more)\n", "...", label_columns - 2, map.positions() - most_lines);
      position = map.positions() - most_lines / 2;
    }
    std::vector<std::string> cells = cells_of(lines[at(position)], count, width);
    if (report.intervals[at(position)].size() < schedule.programs[at(position)].size()) {
      const auto& bars = lines[at(position)];
      cells[bars.empty() ? 0 : at(std::min(bars.back().end, count - 1))] = "?" + std::string(width - 1, ' ');
    }
    std::string line = fmt::format("stage {:<{}}", position, label_columns - 6);
    for (int i = 0; i < head; ++i) line += cells[at(i)];
    if (tail > 0) line += "...  ";
    for (int i = count - tail; tail > 0 && i < count; ++i) line += cells[at(i)];
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  if (tail > 0) text += fmt::format("{:{}}({} of {} time steps shown)\n", "", label_columns, room, count);
  return text;
}

}  // namespace ptrain
