#include "src/train/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "parallel/plan/svg.h"

namespace ptrain {
namespace {

constexpr double width = 560, height = 260;
constexpr double left = 64, right = 12, top = 30, bottom = 30;
constexpr int num_colours = 8;

/// A range of values and where it lies on the page.
struct ChartAxis {
  double low = 0, high = 1;  // as shown: logarithms where the axis is one
  double from = 0, to = 1;   // of the page

  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
};

struct Bounds {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void take(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value), high = std::max(high, value);
  }
  bool is_empty() const { return low > high; }
  /// Wide enough to be drawn.
  void widen() {
    if (high - low > 1e-12 * std::max(std::abs(low), std::abs(high))) return;
    const double more = low == 0 ? 1 : 0.1 * std::abs(low);
    if (low != 0) low -= more;
    high += more;
  }
};

double shown(const Chart& chart, double value) {
  if (!chart.is_logarithmic) return value;
  return value > 0 ? std::log10(value) : std::numeric_limits<double>::quiet_NaN();
}

std::string number_text(double value) {
  const double size = std::abs(value);
  if (size >= 1e12) return fmt::format("{:.3g} T", value / 1e12);
  if (size >= 1e9) return fmt::format("{:.3g} G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:.3g} M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.3g} k", value / 1e3);
  return fmt::format("{:.4g}", value);
}

/// Of the points of each column of pixels the first, the smallest and the largest.
std::vector<size_t> thinned(const std::vector<double>& x, const std::vector<double>& y,
                            const ChartAxis& across) {
  std::vector<size_t> kept;
  for (size_t begin = 0; begin < x.size();) {
    const double column = std::floor(across.at(x[begin]));
    size_t least = begin, most = begin, end = begin;
    for (; end < x.size() && std::floor(across.at(x[end])) == column; ++end) {
      if (y[end] < y[least]) least = end;
      if (y[end] > y[most]) most = end;
    }
    std::vector<size_t> some = {begin, least, most};
    std::ranges::sort(some);
    some.erase(std::unique(some.begin(), some.end()), some.end());
    kept.insert(kept.end(), some.begin(), some.end());
    begin = std::max(end, begin + 1);
  }
  return kept;
}

std::string line_text(const Chart& chart, const ChartLine& line, int colour, const ChartAxis& across,
                      const ChartAxis& up) {
  std::vector<double> y(line.y.size());
  std::ranges::transform(line.y, y.begin(), [&](double value) { return shown(chart, value); });
  std::string path, points;
  bool is_down = false;
  for (const size_t i : thinned(line.x, y, across)) {
    if (!std::isfinite(y[i])) {
      is_down = false;
      continue;
    }
    path += fmt::format("{}{:.1f} {:.1f}", is_down ? "L" : "M", across.at(line.x[i]), up.at(y[i]));
    is_down = true;
    if (line.has_points)
      points += fmt::format("<circle class=\"line-{} dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\"/>", colour,
                            across.at(line.x[i]), up.at(y[i]));
  }
  return fmt::format("<path class=\"line-{}\" d=\"{}\"><title>{}</title></path>{}\n", colour, path,
                     escaped(line.name), points);
}

/// Of a logarithmic axis the logarithms of 1, 2 and 5 times powers of ten.
std::vector<double> upward_ticks(const Chart& chart, const ChartAxis& up) {
  if (!chart.is_logarithmic) return ticks_of(up.low, up.high, 5);
  std::vector<double> ticks;
  const bool is_wide = up.high - up.low > 4;
  for (double decade = std::floor(up.low); decade <= up.high; ++decade) {
    ticks.push_back(decade);
    if (!is_wide) ticks.insert(ticks.end(), {decade + std::log10(2.0), decade + std::log10(5.0)});
  }
  return ticks;
}

std::string axes_text(const Chart& chart, const ChartAxis& across, const ChartAxis& up) {
  std::string text;
  for (const double tick : upward_ticks(chart, up)) {
    if (tick < up.low - 1e-9 || tick > up.high + 1e-9) continue;
    const double value = chart.is_logarithmic ? std::pow(10, tick) : tick;
    text += fmt::format(
        "<path class=\"axis\" d=\"M{} {:.1f}H{}\"/><text class=\"label\" x=\"{}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">{}</text>\n",
        left, up.at(tick), width - right, left - 6, up.at(tick) + 4, number_text(value));
  }
  for (const double tick : ticks_of(across.low, across.high, 6)) {
    if (tick < across.low - 1e-9 || tick > across.high + 1e-9) continue;
    text += fmt::format("<text class=\"label\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                        across.at(tick), height - bottom + 16, number_text(tick));
  }
  return text;
}

}  // namespace

std::vector<double> ticks_of(double low, double high, int most) {
  const double rough = (high - low) / most;
  const double scale = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * scale;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * scale >= rough * (1 - 1e-9)) {
      step = factor * scale;
      break;
    }
  }
  std::vector<double> ticks;
  const auto first = static_cast<int64_t>(std::floor(low / step)),
             last = static_cast<int64_t>(std::ceil(high / step));
  for (int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::string svg_of(const Chart& chart) {
  Bounds x, y;
  for (const ChartLine& line : chart.lines) {
    for (const double value : line.x) x.take(value);
    for (const double value : line.y) y.take(shown(chart, value));
  }
  std::string text = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n<text class=\"title\" x=\"{}\" "
      "y=\"18\">{}</text>\n",
      width, height, escaped(chart.title), left,
      escaped(chart.unit.empty() ? chart.title : chart.title + ", " + chart.unit));
  if (x.is_empty() || y.is_empty()) {
    return text + fmt::format("<text class=\"label\" x=\"{}\" y=\"{}\">no values</text>\n</svg>\n", left,
                              height / 2);
  }
  if (chart.begins_at_zero) y.take(0);
  x.widen(), y.widen();
  const ChartAxis across{x.low, x.high, left, width - right};
  const ChartAxis up{y.low, y.high, height - bottom, top};
  text += axes_text(chart, across, up);
  for (size_t i = 0; i < chart.lines.size(); ++i)
    text += line_text(chart, chart.lines[i], static_cast<int>(i % num_colours), across, up);
  return text + "</svg>\n";
}

}  // namespace ptrain
