// A simulated schedule as a picture. Not for text terminals: see grid() in simulate.h.
#pragma once

#include <string>

#include "parallel/plan/simulate.h"

namespace ptrain {

/// One SVG document: time across, a lane for each position, forwards blue, backwards green, the last
/// micro-batch's bucket segments apart, a title on every bar with its action and times. Of very long
/// schedules the beginning, said in the picture. `title`: a line above.
std::string svg_of(const Schedule& schedule, const StageMap& map, const Report& report,
                   const std::string& title);

}  // namespace ptrain
