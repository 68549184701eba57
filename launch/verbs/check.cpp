// ptrain check: validates configuration, model and data without running, and prints what would run.
#include <cstdio>

#include "launch/runtime.h"
#include "launch/verbs.h"
#include "parallel/comm/agree.h"
#include "src/train/check_run.h"

namespace ptrain {
namespace {

constexpr int most_ranks = 1'000'000;

CheckDepth depth_of(const Arguments& arguments) {
  check(!arguments.has("no-data") || !arguments.has("one-step"), ExitCode::usage,
        "--one-step takes a step on the data, which --no-data leaves alone; give one of them");
  if (arguments.has("one-step")) return CheckDepth::step;
  return arguments.has("no-data") ? CheckDepth::model : CheckDepth::data;
}

/// The fewest ranks that the mesh takes.
int ranks_of_mesh(const Config& config) {
  const Config::Parallel& parallel = config.parallel;
  const double ranks = 1.0 * parallel.tensor * parallel.pipeline * parallel.data.value_or(1);
  check(ranks <= most_ranks, ExitCode::usage, "tensor * pipeline * data = {} * {} * {}: more than {} ranks",
        parallel.tensor, parallel.pipeline, parallel.data.value_or(1), most_ranks);
  return static_cast<int>(ranks);
}

int check_on_ranks(Runtime& runtime, const LoadedConfig& loaded) {
  const int started = runtime.world.size();
  CheckRequest request{.depth = depth_of(runtime.arguments),
                       .hosts = runtime.session.hosts(),
                       .say = [](std::string_view line) {
                         fmt::print("{}\n", line);
                         std::fflush(stdout);
                       }};
  if (runtime.arguments.has("ranks")) {
    request.ranks = static_cast<int>(runtime.arguments.integer("ranks", 1, 1, most_ranks));
    request.source = "--ranks says";
  } else if (started > 1 || request.depth == CheckDepth::step) {
    request.ranks = started;
  } else {
    request.ranks = ranks_of_mesh(loaded.config);
    request.source = "the mesh takes";
  }
  agreed(runtime.world, [&] {
    check(request.depth != CheckDepth::step || request.ranks == started, ExitCode::usage,
          "--one-step runs on the ranks that are there: --ranks says {}, but mpirun started {}",
          request.ranks, started);
  });
  check_run(loaded, request, runtime.world, runtime.device);
  return 0;
}

}  // namespace

int run_check(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(arguments, required_keys());
  depth_of(arguments);
  arguments.integer("ranks", 1, 1, most_ranks);
  ranks_of_mesh(loaded.config);
  const auto program = [&](Runtime& runtime) { return check_on_ranks(runtime, loaded); };
  // Without a step nothing is computed: a run for GPUs can be checked where there are none.
  if (depth_of(arguments) == CheckDepth::step) return run_on_ranks(arguments, loaded.config, program);
  return run_on_ranks(arguments, loaded.config.log.level, program);
}

}  // namespace ptrain
