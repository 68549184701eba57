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
  int micro = 0;
  bool is_forward = false;
};

constexpr int label_columns = 10;
constexpr int most_lines = 32;

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
      bars.push_back({.label = to_string(action),
                      .begin = cell(intervals[i].begin_s),
                      .end = cell(intervals[i].end_s),
                      .micro = action.micro,
                      .is_forward = is_forward(action.kind)});
    }
  }
  return bars;
}

/// One line of cells: `F0 B0 -- F1`, or of width 1 `0a a1`: digits are forwards, letters backwards.
std::vector<std::string> cells_of(const std::vector<Bar>& bars, int count, size_t width) {
  std::vector<std::string> cells(at(count), std::string(width, ' '));
  for (const Bar& bar : bars) {
    for (int i = bar.begin; i < std::min(std::max(bar.end, bar.begin + 1), count); ++i) {
      std::string text = i == bar.begin ? bar.label : std::string(width - 1, '-');
      if (width == 1) text = static_cast<char>((bar.is_forward ? '0' : 'a') + bar.micro % 10);
      text.resize(width, ' ');
      cells[at(i)] = text;
    }
  }
  return cells;
}

/// How much of the time axis is drawn: all of it, or its beginning and its end, where the bubbles are.
struct Sheet {
  int count = 0;     // time steps there are
  size_t width = 0;  // characters of one
  int head = 0, tail = 0;
};

Sheet sheet_of(const std::vector<std::vector<Bar>>& lines, int stuck, int columns) {
  Sheet sheet;
  for (const std::vector<Bar>& bars : lines) {
    for (const Bar& bar : bars) {
      sheet.width = std::max(sheet.width, bar.label.size() + 1);
      sheet.count = std::max({sheet.count, bar.end, bar.begin + 1});
    }
  }
  sheet.count += stuck;
  const auto room_for = [&](size_t width) {
    return std::max(8, (columns - label_columns - 5) / static_cast<int>(width));
  };
  // Where not even the warm-up and the end fit, one character a step has to do.
  const int wanted = std::min(sheet.count, 2 * static_cast<int>(lines.size()) + 6);
  if (room_for(sheet.width) < wanted) sheet.width = 1;
  const int room = room_for(sheet.width);
  sheet.head = sheet.count <= room ? sheet.count : room * 3 / 5;
  sheet.tail = sheet.count <= room ? 0 : room - sheet.head;
  return sheet;
}

std::string line_of(int position, const std::vector<std::string>& cells, const Sheet& sheet) {
  std::string line = fmt::format("stage {:<{}}", position, label_columns - 6);
  for (int i = 0; i < sheet.head; ++i) line += cells[at(i)];
  if (sheet.tail > 0) line += sheet.width == 1 ? " ... " : "...  ";
  for (int i = sheet.count - sheet.tail; sheet.tail > 0 && i < sheet.count; ++i) line += cells[at(i)];
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

std::string grid(const Schedule& schedule, const StageMap& map, const Report& report, int columns) {
  const double cell_s = cell_seconds(schedule, report);
  if (cell_s <= 0) return "nothing is computed\n";
  std::vector<std::vector<Bar>> lines;
  for (int position = 0; position < map.positions(); ++position) {
    lines.push_back(bars_of(schedule.programs[at(position)], report.intervals[at(position)], cell_s));
  }
  const Sheet sheet = sheet_of(lines, report.is_complete ? 0 : 1, columns);

  std::string text;
  for (int position = 0; position < map.positions(); ++position) {
    if (map.positions() > most_lines && position == most_lines / 2) {
      text += fmt::format("{:{}}({} stages more)\n", "", label_columns, map.positions() - most_lines);
      position = map.positions() - most_lines / 2;
    }
    const std::vector<Bar>& bars = lines[at(position)];
    std::vector<std::string> cells = cells_of(bars, sheet.count, sheet.width);
    if (report.intervals[at(position)].size() < schedule.programs[at(position)].size()) {
      std::string& cell = cells[bars.empty() ? 0 : at(std::min(bars.back().end, sheet.count - 1))];
      cell = "?";
      cell.resize(sheet.width, ' ');
    }
    text += line_of(position, cells, sheet);
  }
  if (sheet.width == 1) {
    text += fmt::format("{:{}}(0-9 forward, a-j backward of micro-batches 0-9, 10-19, ... alike)\n", "",
                        label_columns);
  }
  if (sheet.tail > 0) {
    text += fmt::format("{:{}}({} of {} time steps shown)\n", "", label_columns, sheet.head + sheet.tail,
                        sheet.count);
  }
  return text;
}

}  // namespace ptrain
