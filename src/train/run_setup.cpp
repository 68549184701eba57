#include "src/io/json.h"
#include "src/train/run.h"

#include <algorithm>

#include "kernels/base/log.h"
#include "kernels/base/rng.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/find.h"
#include "src/train/config_check.h"
#include "src/train/device_check.h"
#include "src/train/model_files.h"
#include "src/train/plan_choice.h"
#include "src/train/state_files.h"
#include "src/train/weight_check.h"

namespace ptrain {

namespace fs = std::filesystem;

namespace {

/// What lies in the way of the run's own files there, before work is lost over it.
void check_output(const fs::path& output) {
  std::error_code error;
  static_cast<void>(fs::current_path(error));
  check(!error, ExitCode::usage, "the working directory has been deleted ({}); change into one that is there",
        error.message());
  const fs::file_status link = fs::symlink_status(output, error);
  check(!fs::is_symlink(link) || fs::exists(output, error), ExitCode::resources,
        "output: {} is a link to {}, which is not there; make it, or give another output", output.string(),
        fs::read_symlink(output, error).string());
  const struct {
    const char* name;
    fs::file_type type;
  } own[] = {{"checkpoints", fs::file_type::directory}, {"data", fs::file_type::directory},
             {"model", fs::file_type::directory},       {"config.yaml", fs::file_type::regular},
             {"metrics.jsonl", fs::file_type::regular}, {".lock", fs::file_type::regular}};
  for (const auto& one : own) {
    const fs::file_type found = fs::status(output / one.name, error).type();
    const bool is_there = found != fs::file_type::not_found && found != fs::file_type::none;
    check(!is_there || found == one.type, ExitCode::resources,
          "output: {} is in the way: a {} of the run belongs there; move it, or give another output",
          (output / one.name).string(), one.type == fs::file_type::directory ? "directory" : "file");
  }
}

}  // namespace

void Run::claim_output() {
  agreed(world_, [&] {
    check_output(output_);
    check_config(loaded_, {.ranks = world_.size(), .hosts = environment_.hosts});
    if (!is_first()) return;
    std::error_code error;
    fs::create_directories(output_, error);
    check(!error, ExitCode::resources, "output: {} cannot be made: {}", output_.string(), error.message());
    lock_ = RunLock(output_, environment_.job);
    restarts_ = RestartNotes(output_);
    fs::remove(output_ / "failure.json");
  });
  has_output_ = true;
  keep_log();
  open_storage();
  enter("looking at S3");
  cloud_.open(loaded_, output_, *storage_, environment_.search_path);
  config_ = cloud_.fetch_inputs(config_);
}

/// What every rank says, in a file of its own; whoever cannot write one goes without.
void Run::keep_log() const {
  const fs::path directory = output_ / "logs";
  std::error_code error;
  fs::create_directories(directory, error);
  const fs::path file = directory / fmt::format("rank-{:05}.log", world_.rank());
  if (!log::keep_in(file.string()) && is_first()) log::warn("{} cannot be written", file.string());
}

/// The headers of the weights too, long before the weights: what is wrong there is found at once.
void Run::read_model() {
  const Device& device = environment_.device.context.device;
  const Hardware room = room_of_ranks(world_, device, config_, environment_.hosts);
  std::string identity;  // of the model's files, where a host may have its own
  agreed(world_, [&] {
    base_ = read_base_model(config_);
    auto [plan, why] =
        chosen_plan(config_, base_.spec, world_.size(), compute_of(config_, found_device(device)), room);
    plan_ = std::move(plan);
    if (is_first() && !why.empty()) log::info("{}", why);
    if (config_.model.init == Config::Init::pretrained) {
      weights_ = HfDir::open(config_.model.path);
      const std::vector<std::string> unused = check_weights(base_.stored_spec(), *weights_);
      if (is_first()) warn_of_unused(*weights_, unused);
    }
    const std::span<const std::string> hosts = environment_.hosts;
    const auto rank = static_cast<size_t>(world_.rank());
    const auto of_host_0 = hosts.empty() ? 0 : std::ranges::count(hosts, hosts.front());
    const bool speaks_for_host = of_host_0 < std::ssize(hosts) &&
                                 std::ranges::find(hosts, hosts[rank]) == hosts.begin() + world_.rank();
    if (speaks_for_host) identity = fmt::format("{:016x}", model_identity());
    file_dtype_ = checkpoint_dtype(config_);
    encoder_.emplace(config_.model.path, base_, config_.data.mask_prompt);
  });
  if (is_first() && !base_.special_tokens.empty())
    log::info("{}", about_special_tokens(base_, *encoder_->tokenizer));
  const std::string tokens = base_.special_tokens.empty() ? "" : Json(base_.special_tokens).dump();
  agree_alike(world_, ExitCode::input, tokens, [&](std::string_view first) {
    return fmt::format("data.special_tokens: {} lists {}, on the first host {}; copy it anew",
                       *config_.data.special_tokens, tokens, first);
  });
  agree_alike(world_, ExitCode::input, identity, [&](std::string_view) {
    return fmt::format(
        "model.path: {} is another model than on the first host: config.json, tensors or their "
        "first bytes differ; copy it anew",
        config_.model.path);
  });
}

uint64_t Run::model_identity() const {
  if (weights_) return weights_->identity();
  return hash_of(read_text(fs::path(config_.model.path) / "config.json", 1 << 20));
}

void Run::open_data() {
  const fs::path cache = output_ / "data";
  const int data = plan_->mesh.data;
  training_ = open_run_data(config_, config_.data.train, "data.train", *encoder_, base_.spec, data, true,
                            cache, environment_.device.context.threads, *storage_);
  if (!config_.data.validation.empty()) {
    validation_ = open_run_data(config_, config_.data.validation, "data.validation", *encoder_, base_.spec,
                                data, false, cache, environment_.device.context.threads, *storage_);
  }
  steps_ = config_.train.steps.value_or(training_.batches->steps(config_.train.epochs));
  const PackingCounts counts = training_.batches->counts();
  if (is_first()) {
    log::info("data: {} documents, {} tokens; split {}, truncated {}, dropped {}, empty {}", counts.documents,
              counts.tokens, counts.split, counts.truncated, counts.dropped, counts.empty);
  }
}

void Run::build_trainer() {
  if (is_first())
    for (const std::string& line : environment_.banner) log::info("{}", line);
  check_memory(world_, *plan_, environment_.device, environment_.hosts);
  trainer_.emplace(base_.spec, config_.optimizer, *plan_, world_, environment_.device);
  watch_.set_peers(*trainer_);
  if (environment_.after_connecting) environment_.after_connecting();
  progress_ = {.steps = steps_,
               .flops_per_token = training_flops_per_token(base_.spec, config_.data.sequence_length),
               .peak_flops = environment_.peak_flops};
  if (is_first()) {
    log::info("{}: {:.1f} million parameters on {} ranks: {}; {} steps of {} rows of {} tokens",
              base_.spec.family, static_cast<double>(parameter_count(base_.spec)) / 1e6, world_.size(),
              to_string(plan_->mesh), steps_, config_.batch.global, config_.data.sequence_length);
  }
}

void Run::load_model() {
  if (config_.model.init == Config::Init::random)
    return initialise_weights(static_cast<uint64_t>(config_.train.seed), *trainer_);
  load_weights(world_, *weights_, base_, *trainer_);
}

/// Refuses a checkpoint of another run before anything large is made. True where nothing is left to do.
bool Run::look_for_checkpoint() {
  int64_t is_finished = 0;
  auto newest = find_newest(*storage_, output_ / "checkpoints");
  if (cloud_.fetch_newer_checkpoint(newest ? newest->step : 0))
    newest = find_newest(*storage_, output_ / "checkpoints");
  std::string identity;
  agreed(world_, [&] {
    if (!is_first()) return;
    identity_ = run_identity(config_, base_, *training_.dataset);
    identity = identity_.dump();
    if (!newest) return;
    check_resume(newest->manifest.run, identity_, newest->step);
    newest_step_ = newest->step;
    is_finished = newest->step >= steps_ && fs::exists(output_ / "model" / "config.json");
  });
  identity_ =
      parse_json(broadcast_text(world_, identity, 0), "the run's identity");  // each disk's part holds it
  world_.broadcast(Tensor(&newest_step_, {1}, DType::i64), 0);
  world_.broadcast(Tensor(&is_finished, {1}, DType::i64), 0);
  return is_finished != 0;
}

void Run::resume() {
  const auto accept = [&](const Manifest& manifest) {
    if (is_first()) check_resume(manifest.run, identity_, manifest.step);
  };
  std::optional<FoundCheckpoint> found;
  {
    HostState state(*trainer_);
    found = resume_newest(*storage_, output_ / "checkpoints", slices_to_load(*trainer_, state), accept,
                          newest_step_ + 1);
    if (found) state.put();
  }
  if (!found) return load_model();
  last_checkpoint_ = found->path;
  cloud_.add_checkpoint(last_checkpoint_);  // an earlier start may have ended before it was there
  go_on_after(found->step, found->manifest.run);
  find_best_model();
  if (!is_first()) return;
  warn_of_changes(found->manifest.run, identity_, done_steps_);
  log::info("goes on after step {} from {}", done_steps_, found->path.string());
}

/// run: what save_request() said of the run then. Weights and moments are there already.
void Run::go_on_after(int64_t step, const Json& run) {
  done_steps_ = step;
  trainer_->set_updates(run.value("updates", step));
  if (run.contains("loss_scale")) {
    const Json& scale = run["loss_scale"];
    trainer_->loss_scale().restore(scale.at(0).get<double>(), scale.at(1).get<int64_t>());
  }
  progress_.first_step = step + 1;
  progress_.skipped_steps = step - trainer_->updates();
  if (run.contains("best_loss")) {
    best_loss_ = run["best_loss"].get<double>();
    best_step_ = run.value("best_step", int64_t{0});
  }
}

}  // namespace ptrain
