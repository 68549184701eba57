// A schedule as a picture, simulated or measured. Not for text terminals: see grid() in simulate.h.
#pragma once

#include <span>
#include <string>

#include "parallel/plan/simulate.h"

namespace ptrain {

/// One SVG document: time across, a lane for each position, forwards blue, backwards green, their
/// weights' halves yellow, later chunks darker (a legend says so), the last micro-batch's bucket segments
/// apart, a title on every bar with its stage, action and times. Of very long schedules the beginning, said
/// in the picture. `title`: a line above.
std::string svg_of(const Schedule& schedule, const StageMap& map, const Report& report,
                   const std::string& title);

/// Text for XML and HTML: & < > " are written as entities.
std::string escaped(const std::string& text);

struct SvgPanel {
  std::string title;
  const Report* report = nullptr;
};

/// Several reports of one schedule in one document, below each other and on one time scale.
std::string svg_of_panels(const Schedule& schedule, const StageMap& map, std::span<const SvgPanel> panels);

}  // namespace ptrain
