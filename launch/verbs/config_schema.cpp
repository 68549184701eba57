// ptrain config-schema: the JSON Schema of the configuration on stdout, or what docs/ has of it.
#include <fmt/core.h>

#include "launch/verbs.h"
#include "src/io/json.h"
#include "src/train/config_write.h"

namespace ptrain {

int run_config_schema(const Arguments& arguments) {
  if (arguments.has("markdown")) {
    fmt::print("{}", config_reference());
  } else if (arguments.has("moving")) {
    fmt::print("{}", moving_table());
  } else {
    fmt::print("{}\n", config_schema().dump(2));
  }
  return 0;
}

}  // namespace ptrain
