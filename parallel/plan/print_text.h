// Numbers as people read them, for the texts of plans.
#pragma once

#include <string>

namespace ptrain {

std::string percent(double share);         // 0.105 -> "10.5 %"
std::string signed_percent(double share);  // 0.105 -> "+10.5 %"
std::string seconds_text(double seconds);  // "1.67 s", "34.1 ms", "551 us"

}  // namespace ptrain
