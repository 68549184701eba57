#include "launch/verbs.h"

namespace ptrain {

std::span<const Verb> verbs() {
  static const std::vector<Verb> table = {
      {.name = "config-schema",
       .summary = "JSON Schema of every configuration key, with defaults and units",
       .run = run_config_schema},
      {.name = "help",
       .summary = "this page, or a verb's",
       .usage = "[VERB]",
       .max_words = 1,
       .run = run_help},
      {.name = "version", .summary = "version, git revision and what is built in", .run = run_version},
  };
  return table;
}

}  // namespace ptrain
