#include "parallel/plan/svg.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr size_t most_bars = 20'000;  // a browser still scrolls through these
constexpr double lane_px = 26, bar_px = 20, left_px = 80, top_px = 40, legend_px = 24;
constexpr double shortest_px = 22;  // of the shortest forward: room for its number
constexpr double widest_px = 1e6;   // a measured forward may be a thousand times shorter than another

struct Bar {
  int position = 0;
  Action action;
  Interval interval;
};

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

/// By direction; each further chunk of a position is darker.
std::string color_of(ActionKind kind, int chunk) {
  struct Color {
    int red, green, blue;
  };
  const Color base = is_forward(kind)                       ? Color{0x7f, 0xb3, 0xe6}
                     : kind == ActionKind::backward_weights ? Color{0xc9, 0xdf, 0xa0}
                                                            : Color{0x8f, 0xcf, 0x9b};
  const int percent = std::max(40, 100 - 15 * chunk);
  return fmt::format("#{:02x}{:02x}{:02x}", base.red * percent / 100, base.green * percent / 100,
                     base.blue * percent / 100);
}

std::string bar_text(const Bar& bar, const StageMap& map, double top, double px_per_s) {
  const double x = left_px + bar.interval.begin_s * px_per_s;
  const double width = (bar.interval.end_s - bar.interval.begin_s) * px_per_s;
  const double y = top + bar.position * lane_px;
  std::string text = fmt::format(
      R"(<g><title>stage {}: {}, {:.4g} s - {:.4g} s</title><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" fill="{}" stroke="#fff"/>)",
      map.stage_of(bar.position, bar.action.chunk), to_string(bar.action), bar.interval.begin_s,
      bar.interval.end_s, x, y, width, bar_px, color_of(bar.action.kind, bar.action.chunk));
  if (bar.action.bucket <= 0) {
    text += fmt::format(R"(<text x="{:.1f}" y="{:.1f}">{}</text>)", x + 3, y + 14, bar.action.micro);
  }
  return text + "</g>\n";
}

/// What the colors mean, in one line: those of the schedule's kinds, a shade a chunk.
std::string legend_of(const Schedule& schedule, const StageMap& map, double y) {
  constexpr std::pair<ActionKind, const char*> kinds[] = {
      {ActionKind::forward, "forward"},
      {ActionKind::backward, "backward"},
      {ActionKind::backward_input, "backward of the input"},
      {ActionKind::backward_weights, "backward of the weights"}};
  std::string text;
  double x = left_px;
  for (const auto& [kind, words] : kinds) {
    const auto is_kind = [kind](const Action& action) { return action.kind == kind; };
    const auto& programs = schedule.programs;
    if (std::ranges::none_of(programs, [&](const auto& p) { return std::ranges::any_of(p, is_kind); }))
      continue;
    for (int chunk = 0; chunk < map.chunks(); ++chunk, x += 14) {
      text += fmt::format(R"(<rect x="{:.0f}" y="{:.0f}" width="12" height="12" fill="{}"/>)", x, y,
                          color_of(kind, chunk));
    }
    const std::string label = map.chunks() > 1 ? fmt::format("{}, chunk by chunk", words) : words;
    text += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n", x + 2, y + 10, label);
    x += 24 + 6.0 * static_cast<double>(label.size());
  }
  return text;
}

/// What a lane is called: its stage, or with several of them its place along the pipeline.
std::string lane_name(const StageMap& map, int position) {
  return fmt::format("{} {}", map.chunks() == 1 ? "stage" : "position", position);
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

std::string svg_of(const Schedule& schedule, const StageMap& map, const Report& report,
                   const std::string& title) {
  const SvgPanel panel{title, &report};
  return svg_of_panels(schedule, map, {&panel, 1});
}

std::string svg_of_panels(const Schedule& schedule, const StageMap& map, std::span<const SvgPanel> panels) {
  const size_t most = most_bars / std::max<size_t>(1, panels.size());
  // 1. Scale: the shortest forward is wide enough for its number.
  std::vector<std::vector<Bar>> bars;
  bool is_cut = false;
  double shortest_s = 0, end_s = 0;
  for (const SvgPanel& panel : panels) {
    std::vector<Bar>& mine = bars.emplace_back(bars_in_time_order(schedule, *panel.report));
    is_cut |= mine.size() > most;
    if (mine.size() > most) mine.resize(most);
    for (const Bar& bar : mine) {
      const double length_s = bar.interval.end_s - bar.interval.begin_s;
      if (is_forward(bar.action.kind) && length_s > 0) {
        shortest_s = shortest_s == 0 ? length_s : std::min(shortest_s, length_s);
      }
      end_s = std::max(end_s, bar.interval.end_s);
    }
  }
  const double px_per_s = shortest_s > 0 ? std::min(shortest_px / shortest_s, widest_px / end_s) : 1;
  // 2. Frame, then of each panel its title, lanes and bars.
  const double panel_px = top_px + map.positions() * lane_px + 10;
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" height=\"{:.0f}\" "
      "font-family=\"sans-serif\" "
      "font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      left_px + end_s * px_per_s + 20, panel_px * static_cast<double>(panels.size()) + legend_px);
  for (size_t i = 0; i < panels.size(); ++i) {
    const double top = panel_px * static_cast<double>(i);
    text += fmt::format("<text x=\"8\" y=\"{:.0f}\" font-size=\"14\">{}{}</text>\n", top + 20,
                        escaped(panels[i].title), is_cut ? fmt::format(" (the first {} actions)", most) : "");
    for (int position = 0; position < map.positions(); ++position) {
      text += fmt::format("<text x=\"8\" y=\"{:.1f}\">{}</text>\n", top + top_px + position * lane_px + 14,
                          lane_name(map, position));
    }
    for (const Bar& bar : bars[i]) text += bar_text(bar, map, top + top_px, px_per_s);
  }
  text += legend_of(schedule, map, panel_px * static_cast<double>(panels.size()));
  return text + "</svg>\n";
}

}  // namespace ptrain
