// ptrain verify: two steps under several plans on the ranks that are there; they must agree.
#include <cstdio>
#include <limits>

#include "launch/runtime.h"
#include "launch/verbs.h"
#include "src/train/verify.h"

namespace ptrain {

int run_verify(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(arguments, {"model.path", "data.train"});
  return run_on_ranks(arguments, loaded.config, [&](Runtime& runtime) {
    const auto say = [](std::string_view line) {
      fmt::print("{}\n", line);
      std::fflush(stdout);
    };
    VerifyRequest request{.hosts = runtime.session.hosts(), .say = say};
    if (arguments.has("all")) request.most = std::numeric_limits<size_t>::max();
    const std::vector<VariantReport> reports = verify_run(loaded, request, runtime.world, runtime.device);
    check_agreement(reports, runtime.world);
    if (runtime.is_first()) say(verdict(reports));
    return 0;
  });
}

}  // namespace ptrain
