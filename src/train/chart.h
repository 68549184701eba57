// A line chart as SVG. Pure text; for reports. Not for schedules (parallel/plan/svg).
#pragma once

#include <string>
#include <vector>

namespace ptrain {

struct ChartLine {
  std::string name;  // in the legend; its colour is that of its place in the list
  std::vector<double> x;
  std::vector<double> y;    // as many; what is not finite is a gap
  bool has_points = false;  // marked one by one: for few values
};

struct Chart {
  std::string title;
  std::string unit;  // behind the title
  bool is_logarithmic = false;
  bool begins_at_zero = false;
  std::vector<ChartLine> lines;
};

/// One <svg> element of 560 x 260 with axes, labels and lines; long lines are thinned to the smallest and
/// largest value of each pixel, so that no spike is lost. Colours and text come from the page's classes
/// line-0 … line-7, `axis` and `label`.
std::string svg_of(const Chart& chart);

/// Round numbers that cover [low, high], about `most` of them. Example: 0.2, 9.7, 5 -> 0, 2, 4, 6, 8, 10.
std::vector<double> ticks_of(double low, double high, int most);

}  // namespace ptrain
