// ptrain config-schema: the JSON Schema of the configuration on stdout.
#include <fmt/core.h>

#include "launch/verbs.h"
#include "src/train/config_write.h"

namespace ptrain {

int run_config_schema(const Arguments&) {
  fmt::print("{}\n", config_schema().dump(2));
  return 0;
}

}  // namespace ptrain
