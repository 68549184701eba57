// ptrain CONFIG: trains.
#include <cstdio>

#include "launch/runtime.h"
#include "launch/verbs.h"
#include "src/train/train_loop.h"

namespace ptrain {

int run_train(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(arguments, required_keys());
  return run_on_ranks(arguments, loaded.config.log.level, [&](Runtime& runtime) {
    const char* job = arguments.variable("SLURM_JOB_ID");
    const ExitCode code = run_training(loaded, {.world = runtime.world,
                                                .context = runtime.context,
                                                .job = job == nullptr ? "" : job,
                                                .peak_flops = std::nullopt,
                                                .say = [](std::string_view line) {
                                                  fmt::print("{}\n", line);
                                                  std::fflush(stdout);
                                                }});
    return static_cast<int>(code);
  });
}

}  // namespace ptrain
