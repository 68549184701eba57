// ptrain CONFIG: trains.
#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstdio>

#include "kernels/base/log.h"
#include "launch/doctor/collect.h"
#include "launch/peak_file.h"
#include "launch/runtime.h"
#include "launch/sagemaker.h"
#include "launch/terminal.h"
#include "launch/verbs.h"
#include "src/train/config_keys.h"
#include "src/train/train_loop.h"

namespace ptrain {
namespace {

// Set by a signal: save at the end of the step and leave. A signal handler can reach nothing but a global.
volatile std::sig_atomic_t is_stop_signalled = 0;

void listen_for_stop() {
  const auto note = [](int) { is_stop_signalled = 1; };
  std::signal(SIGUSR1, note);
  std::signal(SIGTERM, note);
}

/// Keys are not read from the environment; who expects it would train with a default.
void warn_of_variables(const Environment& environment) {
  constexpr std::string_view prefix = "PTRAIN_";
  for (const auto& [name, value] : environment) {
    if (!name.starts_with(prefix)) continue;
    for (const Key& key : config_keys()) {
      const auto is_same = [](char variable, char path) {
        return variable == (path == '.' ? '_' : static_cast<char>(std::toupper(path)));
      };
      if (std::ranges::equal(std::string_view(name).substr(prefix.size()), key.path, is_same))
        log::warn("the variable {} is not read: give --{} {}", name, key.path, value);
    }
  }
}

}  // namespace

int run_train(const Arguments& arguments) {
  // At once: a signal while the job starts is not lost either. Later ones change nothing: the save is under
  // way.
  listen_for_stop();
  const LoadedConfig loaded = load_config(arguments, required_keys());
  const bool is_model_wanted = sagemaker::wants_model(arguments.environment);
  return run_on_ranks(arguments, loaded.config, [&](Runtime& runtime) {
    agreed(runtime.world, [&] {
      const std::string objection =
          sagemaker::objection_to_world(arguments.environment, runtime.session.hosts());
      check(objection.empty(), ExitCode::usage, "{}", objection);
    });
    doctor::check_machine(runtime.session, arguments);
    if (runtime.is_first()) warn_of_variables(arguments.environment);
    const bool has_launcher =
        !find_launcher([&](const char* name) { return arguments.variable(name); }).name.empty();
    Terminal terminal(arguments.variable("TERM"),
                      has_launcher ? Terminal::StartedBy::launcher : Terminal::StartedBy::hand);
    const char* job = arguments.variable("SLURM_JOB_ID");
    const char* path = arguments.variable("PATH");
    const ExitCode code =
        run_training(loaded, {.world = runtime.world,
                              .device = runtime.device,
                              .banner = runtime.gpu ? runtime.gpu->banner : std::vector<std::string>{},
                              .after_connecting =
                                  [&] {
                                    if (runtime.gpu) runtime.gpu->judge_network(runtime.world);
                                  },
                              .hosts = runtime.session.hosts(),
                              .search_path = path == nullptr ? "" : path,
                              .job = job == nullptr ? "" : job,
                              .peak_flops = measured_peak(runtime, loaded.config),
                              .say = [&](std::string_view line) { terminal.say(line); },
                              .show_step = terminal.step_shower(),
                              .is_stop_wanted = [] { return is_stop_signalled != 0; }});
    if (is_model_wanted && code == ExitCode::done) {
      agreed(runtime.world, [&] {
        if (runtime.world.rank() == 0)
          sagemaker::copy_model(std::filesystem::path(loaded.config.output) / "model");
      });
    }
    return static_cast<int>(code);
  });
}

}  // namespace ptrain
