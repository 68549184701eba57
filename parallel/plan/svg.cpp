#include "parallel/plan/svg.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr int most_bars = 20'000;  // a browser still scrolls through these
constexpr double lane_px = 26, bar_px = 20, left_px = 70, top_px = 40;
constexpr double shortest_px = 22;  // of the shortest forward: room for its number

struct Bar {
  int position = 0;
  Action action;
  Interval interval;
};

std::string escaped(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (c == '&') {
      result += "&amp;";
    } else if (c == '<') {
      result += "&lt;";
    } else if (c == '>') {
      result += "&gt;";
    } else {
      result += c;
    }
  }
  return result;
}

std::vector<Bar> bars_in_time_order(const Schedule& schedule, const Report& report) {
  std::vector<Bar> bars;
  for (size_t position = 0; position < report.intervals.size(); ++position) {
    for (size_t i = 0; i < report.intervals[position].size(); ++i) {
      const Action& action = schedule.programs[position][i];
      if (is_compute(action.kind)) {
        bars.push_back({static_cast<int>(position), action, report.intervals[position][i]});
      }
    }
  }
  std::ranges::stable_sort(bars, {}, [](const Bar& bar) { return bar.interval.begin_s; });
  return bars;
}

const char* color_of(ActionKind kind) {
  return kind == ActionKind::forward            ? "#7fb3e6"
         : kind == ActionKind::backward_weights ? "#c9dfa0"
                                                : "#8fcf9b";
}

std::string bar_text(const Bar& bar, double px_per_s) {
  const double x = left_px + bar.interval.begin_s * px_per_s;
  const double width = (bar.interval.end_s - bar.interval.begin_s) * px_per_s;
  const double y = top_px + bar.position * lane_px;
  std::string text = fmt::format(
      R"(<g><title>stage {}: {}, {:.4g} s - {:.4g} s</title><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" fill="{}" stroke="#fff"/>)",
      bar.position, to_string(bar.action), bar.interval.begin_s, bar.interval.end_s, x, y, width, bar_px,
      color_of(bar.action.kind));
  if (bar.action.bucket <= 0) {
    text += fmt::format(R"(<text x="{:.1f}" y="{:.1f}">{}</text>)", x + 3, y + 14, bar.action.micro);
  }
  return text + "</g>\n";
}

}  // namespace

std::string svg_of(const Schedule& schedule, const StageMap& map, const Report& report,
                   const std::string& title) {
  std::vector<Bar> bars = bars_in_time_order(schedule, report);
  const bool is_cut = bars.size() > most_bars;
  if (is_cut) bars.resize(most_bars);
  // 1. Scale: the shortest forward is wide enough for its number.
  double shortest_s = 0, end_s = 0;
  for (const Bar& bar : bars) {
    const double length_s = bar.interval.end_s - bar.interval.begin_s;
    if (is_forward(bar.action.kind) && length_s > 0) {
      shortest_s = shortest_s == 0 ? length_s : std::min(shortest_s, length_s);
    }
    end_s = std::max(end_s, bar.interval.end_s);
  }
  const double px_per_s = shortest_s > 0 ? shortest_px / shortest_s : 1;
  // 2. Frame, lanes, bars.
  const double width = left_px + end_s * px_per_s + 20;
  const double height = top_px + map.positions() * lane_px + 10;
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" height=\"{:.0f}\" "
      "font-family=\"sans-serif\" "
      "font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"8\" y=\"20\" "
      "font-size=\"14\">{}{}</text>\n",
      width, height, escaped(title), is_cut ? fmt::format(" (the first {} actions)", most_bars) : "");
  for (int position = 0; position < map.positions(); ++position) {
    text += fmt::format("<text x=\"8\" y=\"{:.1f}\">stage {}</text>\n", top_px + position * lane_px + 14,
                        position);
  }
  for (const Bar& bar : bars) text += bar_text(bar, px_per_s);
  return text + "</svg>\n";
}

}  // namespace ptrain
