// ptrain help [VERB]: the pages of --help.
#include <fmt/core.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "launch/verbs.h"

namespace ptrain {

int run_help(const Arguments& arguments) {
  if (arguments.words.empty()) {
    fmt::print("{}", help_text(verbs()));
    return 0;
  }
  const std::string& name = arguments.words[0];
  const auto verb = std::ranges::find(verbs(), name, &Verb::name);
  check(verb != verbs().end(), ExitCode::usage, "there is no verb \"{}\"; ptrain --help lists the verbs",
        name);
  fmt::print("{}", help_text(*verb));
  return 0;
}

}  // namespace ptrain
