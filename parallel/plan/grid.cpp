// Draws a simulated schedule as text; declared in simulate.h.
#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/simulate.h"

namespace ptrain {
namespace {

/// A compute action on the time axis; neighbouring segments of one backward are one bar.
struct Bar {
  std::string label;
  int begin = 0, end = 0;  // cells
  char narrow = ' ';       // where a cell has room for one character only
};

/// How the bars of a schedule are called.
struct Words {
  int chunks = 1;
  bool has_halves = false;

  /// "F3"; of two chunks the second in lower case, of more each with its number behind it.
  std::string label(Action action) const {
    action.bucket = -1;
    if (chunks != 2 || action.chunk == 0) return to_string(action);
    action.chunk = 0;
    std::string text = to_string(action);
    text[0] = static_cast<char>(text[0] - 'A' + 'a');
    return text;
  }

  /// The alphabet tells the kind, the place in it the micro, or the chunk where there are several or halves.
  char narrow(const Action& action) const {
    const bool is_weights = action.kind == ActionKind::backward_weights;
    const char first = is_forward(action.kind) ? '0' : is_weights ? 'A' : 'a';
    return static_cast<char>(first + (tells_micros() ? action.micro : action.chunk) % 10);
  }

  std::string legend(bool is_narrow) const {
    if (is_narrow && tells_micros())
      return "0-9 forward, a-j backward of micro-batches 0-9, 10-19, ... alike";
    const std::string parts = chunks == 1   ? ""
                              : is_narrow   ? "; 1, b, B and so on: the next chunks"
                              : chunks == 2 ? "upper case: first chunk, lower case: second"
                                            : "F3'1: micro-batch 3 in the second chunk";
    if (is_narrow) {
      const char* backward = has_halves ? "a backward of the input, A of the weights" : "a backward";
      return fmt::format("0 forward, {}{}", backward, parts);
    }
    const char* halves = has_halves ? "I: backward of the input, W: of the weights" : "";
    return parts + (has_halves && chunks > 1 ? "; " : "") + halves;
  }

 private:
  bool tells_micros() const { return chunks == 1 && !has_halves; }
};

Words words_of(const Schedule& schedule, const StageMap& map) {
  Words words{.chunks = map.chunks()};
  for (const std::vector<Action>& program : schedule.programs) {
    words.has_halves |= std::ranges::any_of(
        program, [](const Action& action) { return action.kind == ActionKind::backward_input; });
  }
  return words;
}

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
                         double cell_s, const Words& words) {
  std::vector<Bar> bars;
  const auto cell = [&](double s) { return static_cast<int>(std::lround(s / cell_s)); };
  for (size_t i = 0; i < intervals.size(); ++i) {
    const Action& action = program[i];
    if (!is_compute(action.kind)) continue;
    if (action.bucket > 0 && !bars.empty()) {
      bars.back().end = cell(intervals[i].end_s);
    } else {
      bars.push_back({.label = words.label(action),
                      .begin = cell(intervals[i].begin_s),
                      .end = cell(intervals[i].end_s),
                      .narrow = words.narrow(action)});
    }
  }
  return bars;
}

/// One line of cells: `F0 B0 -- F1`, or of width 1 `0a a1`.
std::vector<std::string> cells_of(const std::vector<Bar>& bars, int count, size_t width) {
  std::vector<std::string> cells(at(count), std::string(width, ' '));
  for (const Bar& bar : bars) {
    for (int i = bar.begin; i < std::min(std::max(bar.end, bar.begin + 1), count); ++i) {
      std::string text = i == bar.begin ? bar.label : std::string(width - 1, '-');
      if (width == 1) text = bar.narrow;
      text.resize(width, ' ');
      cells[at(i)] = text;
    }
  }
  return cells;
}

/// How much of the time axis is drawn: all of it, or its beginning and its end, where the bubbles are.
struct Sheet {
  std::string row;   // what a line is: a stage, or a position with several
  int count = 0;     // time steps there are
  size_t width = 0;  // characters of one
  int head = 0, tail = 0;

  int label_columns() const { return static_cast<int>(row.size()) + 5; }
};

Sheet sheet_of(const std::vector<std::vector<Bar>>& lines, const std::string& row, int stuck, int columns) {
  Sheet sheet{.row = row};
  for (const std::vector<Bar>& bars : lines) {
    for (const Bar& bar : bars) {
      sheet.width = std::max(sheet.width, bar.label.size() + 1);
      sheet.count = std::max({sheet.count, bar.end, bar.begin + 1});
    }
  }
  sheet.count += stuck;
  const auto room_for = [&](size_t width) {
    return std::max(8, (columns - sheet.label_columns() - 5) / static_cast<int>(width));
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
  std::string line = fmt::format("{} {:<4}", sheet.row, position);
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
  const Words words = words_of(schedule, map);
  std::vector<std::vector<Bar>> lines;
  for (int position = 0; position < map.positions(); ++position) {
    lines.push_back(bars_of(schedule.programs[at(position)], report.intervals[at(position)], cell_s, words));
  }
  const Sheet sheet =
      sheet_of(lines, map.chunks() > 1 ? "position" : "stage", report.is_complete ? 0 : 1, columns);

  std::string text;
  for (int position = 0; position < map.positions(); ++position) {
    if (map.positions() > most_lines && position == most_lines / 2) {
      text += fmt::format("{:{}}({} {}s more)\n", "", sheet.label_columns(), map.positions() - most_lines,
                          sheet.row);
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
  if (const std::string legend = words.legend(sheet.width == 1); !legend.empty())
    text += fmt::format("{:{}}({})\n", "", sheet.label_columns(), legend);
  if (sheet.tail > 0) {
    text += fmt::format("{:{}}({} of {} time steps shown)\n", "", sheet.label_columns(),
                        sheet.head + sheet.tail, sheet.count);
  }
  return text;
}

}  // namespace ptrain
