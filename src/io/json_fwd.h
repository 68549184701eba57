// JSON's name alone, for headers that hand values on: the library's own header takes longer to compile than
// most files. What can be done with a value: json.h.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace ptrain {

using Json = nlohmann::ordered_json;

}  // namespace ptrain
