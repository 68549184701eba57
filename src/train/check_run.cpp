#include "src/train/check_run.h"

#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>

#include "kernels/base/clock.h"
#include "kernels/base/crc32c.h"
#include "kernels/base/log.h"
#include "kernels/base/runtime.h"
#include "parallel/comm/agree.h"
#include "parallel/plan/print.h"
#include "src/data/show_rows.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/find.h"
#include "src/io/json.h"
#include "src/io/part_writers.h"
#include "src/train/config_check.h"
#include "src/train/model_files.h"
#include "src/train/plan_choice.h"
#include "src/train/resume.h"
#include "src/train/run_data.h"
#include "src/train/state_files.h"
#include "src/train/weight_check.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t shown_rows = 2;
constexpr size_t shown_lines = 8;      // of a row
constexpr size_t shown_columns = 160;  // of a line

/// The first lines of a text, each cut where it is long.
std::string shortened(std::string_view text) {
  std::string shown;
  size_t lines = 0;
  for (size_t begin = 0; begin < text.size(); ++lines) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (lines >= shown_lines) continue;
    const bool is_long = line.size() > shown_columns;
    if (is_long) {
      size_t cut = shown_columns;
      while (cut > 0 && (static_cast<unsigned char>(line[cut]) & 0xC0) == 0x80) --cut;  // inside a character
      line = line.substr(0, cut);
    }
    shown += fmt::format("  {}{}\n", line, is_long ? " …" : "");
  }
  if (lines > shown_lines) shown += fmt::format("    … {} more\n", lines - shown_lines);
  return shown;
}

/// A directory that is gone when the object is, and its parent with it where that was made for it.
class Scratch {
 public:
  explicit Scratch(fs::path path) : path_(std::move(path)), had_parent_(fs::exists(path_.parent_path())) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
    if (!had_parent_) fs::remove(path_.parent_path(), ignored);  // unless there is something in it
  }

 private:
  fs::path path_;
  bool had_parent_;
};

/// Every tensor that a checkpoint brings back.
std::vector<Tensor> tensors_of(const std::vector<StateSlice>& slices) {
  std::vector<Tensor> tensors;
  for (const StateSlice& slice : slices) {
    for (const Tensor& tensor : {slice.weight, slice.first_moment, slice.second_moment}) {
      if (tensor && tensor.numel() > 0) tensors.push_back(tensor);
    }
  }
  return tensors;
}

int64_t bytes_of(const Tensor& tensor) {
  return tensor.numel() * size_bytes(tensor.dtype);
}

class RunCheck {
 public:
  RunCheck(const LoadedConfig& loaded, const CheckRequest& request, Communicator& world,
           const RunDevice& device)
      : loaded_(loaded), config_(loaded.config), request_(request), world_(world), device_(device) {}

  void go();

 private:
  bool is_first() const { return world_.rank() == 0; }
  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) const {
    if (is_first()) request_.say(fmt::format(text, std::forward<Args>(args)...));
  }

  void judge_configuration();
  void look_at_model();
  void look_at_weights();
  void say_plan() const;
  void look_at_data();
  void count(const RunData& data, std::string_view key);
  void look_at_output();
  void show_rows(const RunData& data) const;
  void take_a_step();
  void save_and_read_back(Trainer& trainer);

  const LoadedConfig& loaded_;
  const Config& config_;
  const CheckRequest& request_;
  Communicator& world_;
  RunDevice device_;
  BaseModel base_;
  std::optional<Plan> plan_;
  std::optional<HfDir> weights_;  // of a model that is not drawn at random
  std::optional<TextEncoder> encoder_;
  std::optional<Storage> storage_;  // below the output
  RunData training_, validation_;
};

void RunCheck::judge_configuration() {
  agreed(world_, [&] { check_config(loaded_, {.ranks = request_.ranks, .source = request_.source}); });
  say("configuration   {}: valid for {} rank{}", loaded_.file, request_.ranks,
      request_.ranks == 1 ? "" : "s");
  if (config_.device == Config::Device::cuda && runtime::device_count() == 0)
    say("not here        device: cuda, but no GPU can be used on this machine");
}

void RunCheck::look_at_model() {
  const Device& device = device_.context.device;
  const bool is_run = request_.ranks == world_.size();  // else the run's memory is not known here
  const Hardware room = is_run ? room_of_ranks(world_, device, config_, {}) : ideal_hardware(std::nullopt);
  std::string why;
  agreed(world_, [&] {
    base_ = read_base_model(config_);
    ChosenPlan chosen = chosen_plan(config_, base_.spec, request_.ranks,
                                    compute_of(config_, found_device(device)), room, request_.source);
    plan_ = std::move(chosen.plan);
    why = std::move(chosen.why);
  });
  if (!why.empty()) say("chosen          {}", why);
  say("model           {}: {}, {} parameters", config_.model.path, base_.spec.family,
      with_commas(parameter_count(base_.spec)));
  look_at_weights();
  agreed(world_, [&] { encoder_.emplace(config_.model.path, base_, config_.data.mask_prompt); });
  say("text            {}", encoder_->tokenizer
                                ? fmt::format("a tokenizer of {} tokens", encoder_->tokenizer->size())
                                : std::string("no tokenizer: rows must be ids"));
  if (!base_.special_tokens.empty())
    say("added           {}", about_special_tokens(base_, *encoder_->tokenizer));
}

void RunCheck::look_at_weights() {
  if (config_.model.init == Config::Init::random) {
    return say("weights         drawn at random from seed {}", config_.train.seed);
  }
  if (request_.depth == CheckDepth::model && !has_weight_files(config_.model.path)) {
    return say("weights         none in {}; training with model.init: pretrained needs them",
               config_.model.path);
  }
  std::vector<std::string> unused;
  agreed(world_, [&] {
    weights_ = HfDir::open(config_.model.path);
    unused = check_weights(base_.stored_spec(), *weights_);
  });
  if (is_first()) warn_of_unused(*weights_, unused);
  say("weights         {} tensors in {} file{}, {}: names and shapes as config.json asks for",
      weights_->tensors().size(), weights_->files().size(), weights_->files().size() == 1 ? "" : "s",
      name_of(stored_dtype(*weights_)));
}

void RunCheck::say_plan() const {
  const ParallelConfig& parallel = plan_->parallel;
  say("mesh            {} rank{}: {}; schedule {}, ZeRO {}, sequence parallelism {}", plan_->mesh.world(),
      plan_->mesh.world() == 1 ? "" : "s", to_string(plan_->mesh), name_of(parallel.schedule), parallel.zero,
      parallel.is_sequence_parallel ? "on" : "off");
  for (const StagePlan& stage : plan_->stages) {
    const int rank = plan_->mesh.rank_of({.pipeline = stage.position});
    const auto name_of_unit = [&](int64_t unit) {
      return plan_->workload.units[static_cast<size_t>(unit)].name;
    };
    say("stage {:<9} {} to {}: {} parameters and {} a rank", stage.position, name_of_unit(stage.units.begin),
        name_of_unit(stage.units.end() - 1), with_commas(flat_layout_of(*plan_, rank).elements),
        bytes_text(static_cast<double>(ledger_of(*plan_, rank).total_bytes())));
  }
  say("batch           {} rows of {} tokens a step: {} micro-batches of {} on each of {} data ranks",
      parallel.global, parallel.sequence_length, plan_->micros, parallel.micro, plan_->mesh.data);
}

void RunCheck::look_at_data() {
  FoundStorage found = find_storage(world_, request_.hosts, storage_wish(config_.checkpoint.storage),
                                    loaded_.where("checkpoint.storage"), config_.output);
  storage_.emplace(std::move(found.storage));
  if (!found.is_one_host) say("storage         {}: {}", name_of(storage_->kind()), found.why);
  const fs::path cache = fs::path(config_.output) / "data";
  training_ = open_run_data(config_, config_.data.train, "data.train", *encoder_, base_.spec,
                            plan_->mesh.data, true, cache, device_.context.threads, *storage_);
  count(training_, "data.train");
  if (!config_.data.validation.empty()) {
    validation_ = open_run_data(config_, config_.data.validation, "data.validation", *encoder_, base_.spec,
                                plan_->mesh.data, false, cache, device_.context.threads, *storage_);
    count(validation_, "data.validation");
  }
  const int64_t steps = config_.train.steps.value_or(training_.batches->steps(config_.train.epochs));
  say("steps           {}, {} an epoch", with_commas(steps),
      with_commas(training_.batches->steps_per_epoch(0)));
  look_at_output();
  show_rows(training_);
}

/// Whether the run would begin or go on.
void RunCheck::look_at_output() {
  std::optional<int64_t> step;
  const auto found = find_newest(*storage_, fs::path(config_.output) / "checkpoints");
  agreed(world_, [&] {
    if (!is_first() || !found) return;
    const Json identity = run_identity(config_, base_, *training_.dataset);
    check_resume(found->manifest.run, identity, found->step);
    warn_of_changes(found->manifest.run, identity, found->step);
    step = found->step;
  });
  say("output          {}: {}", config_.output,
      step ? fmt::format("goes on after step {}", *step) : std::string("begins with step 1"));
}

/// Adds up the first epoch; each rank reads its share of the steps.
void RunCheck::count(const RunData& data, std::string_view key) {
  const Batches& batches = *data.batches;
  const int64_t steps = batches.steps_per_epoch(0), global = batches.geometry().global;
  std::array<int64_t, 2> sums{};  // supervised tokens, steps without any
  std::optional<Error> error;
  try {
    for (int64_t step = 1 + world_.rank(); step <= steps; step += world_.size()) {
      const int64_t supervised = batches.supervised(step);
      sums[0] += supervised;
      sums[1] += supervised == 0;
    }
  } catch (const Error& found) {
    error = found;
  }
  agree(world_, error);
  world_.all_reduce(Tensor(sums.data(), {2}, DType::i64));
  int64_t rows = (steps - 1) * global;
  for (int64_t row = 0; row < global; ++row) rows += !batches.parts(steps, row).empty();
  agreed(world_, [&] {
    check(sums[0] > 0, ExitCode::input,
          "{}: no token is supervised, so there is nothing to learn; see what "
          "`ptrain preprocess CONFIG --show 3` prints",
          key);
  });
  say("{:<15} {}; {} tokens supervised; {} rows", key, describe(batches.counts(), batches.rules()), sums[0],
      rows);
  if (sums[1] > 0)
    say("{:<15} {} of {} steps have no supervised token and will be skipped", "", sums[1], steps);
}

void RunCheck::show_rows(const RunData& data) const {
  std::string text;
  agreed(world_, [&] {
    if (!is_first()) return;
    const DatasetOptions options{.files = config_.data.train,
                                 .key = "data.train",
                                 .vocabulary_size = base_.spec.V,
                                 .cache_directory = {},
                                 .threads = device_.context.threads};
    const int64_t most = std::min(shown_rows, data.dataset->size());
    for (const ShownDocument& shown : first_documents(options, encoder_->encoding(), most)) {
      text += shortened(show(shown, encoder_->tokenizer.get()));
    }
  });
  if (!text.empty()) text.pop_back();
  say("supervised      + is learned, . is only read:\n{}", text);
}

void RunCheck::take_a_step() {
  Trainer trainer(base_.spec, config_.optimizer, *plan_, world_, device_);
  const double begin_s = now_s();
  if (weights_) {
    load_weights(world_, *weights_, base_, trainer);
  } else {
    initialise_weights(static_cast<uint64_t>(config_.train.seed), trainer);
  }
  const double loaded_s = now_s();
  int64_t step = 1;
  while (training_.batches->supervised(step) == 0) ++step;  // count() saw that there is one
  const int64_t steps = std::max(step, training_.batches->steps_per_epoch(0));
  const StepResult result = trainer.step(*training_.batches, step, steps);
  agreed(world_, [&] { check_finite(result); });
  say("one step        loaded in {:.2f} s; step {}: loss {:.4f}, gradient norm {:.3f}, {:.2f} s",
      loaded_s - begin_s, step, result.loss, result.grad_norm, result.step_s);
  save_and_read_back(trainer);
}

/// Saves below the output, wipes the trainer's state, loads it and compares checksums of every tensor.
void RunCheck::save_and_read_back(Trainer& trainer) {
  int64_t process = ::getpid();
  world_.broadcast(Tensor(&process, {1}, DType::i64), 0);
  const fs::path root = fs::path(config_.output) / fmt::format(".check-{}", process);
  std::optional<Scratch> scratch;
  if (storage_->is_first_of_disk()) scratch.emplace(root);
  const double begin_s = now_s();
  HostState state(trainer);
  state.get();
  SmallFiles small_files;
  agreed(world_, [&] {
    if (storage_->is_first_of_disk())
      small_files = small_files_of(base_, config_.model.path, encoder_->tokenizer.get());
  });
  SaveRequest request{.root = root,
                      .small_files = std::move(small_files),
                      .step = 1,
                      .tensors = model_tensors(*plan_, checkpoint_dtype(config_), storage_->disks()),
                      .save = name_of_save(*storage_)};
  const MovedSlices moved(*storage_, slices_to_save(trainer, state), parts_of(request.tensors));
  save_checkpoint(world_, part_of_checkpoint(*storage_), request, moved.slices());
  const double saved_s = now_s();
  const std::vector<StateSlice> slices = slices_to_load(trainer, state);
  const std::vector<Tensor> tensors = tensors_of(slices);
  std::vector<uint32_t> sums;
  int64_t bytes = 0;
  for (const Tensor& tensor : tensors) {
    sums.push_back(crc32c(tensor.data, static_cast<size_t>(bytes_of(tensor))));
    bytes += bytes_of(tensor);
    std::memset(tensor.data, 0xFF, static_cast<size_t>(bytes_of(tensor)));
  }
  const std::optional<FoundCheckpoint> found = resume_newest(*storage_, root, slices);
  agreed(world_, [&] {
    check(found.has_value(), ExitCode::resources, "{}: what was saved there is not there", root.string());
  });
  agreed(world_, [&] {
    for (size_t i = 0; i < tensors.size(); ++i) {
      check(crc32c(tensors[i].data, static_cast<size_t>(bytes_of(tensors[i]))) == sums[i],
            "the checkpoint in {} did not bring back what was saved", root.string());
    }
  });
  world_.all_reduce(Tensor(&bytes, {1}, DType::i64));
  say("checkpoint      saved in {:.2f} s, read back in {:.2f} s: {} of state are the same; removed",
      saved_s - begin_s, now_s() - saved_s, bytes_text(static_cast<double>(bytes)));
}

void RunCheck::go() {
  judge_configuration();
  look_at_model();
  say_plan();
  if (request_.depth == CheckDepth::model) return;
  look_at_data();
  if (request_.depth == CheckDepth::step) take_a_step();
}

}  // namespace

void check_run(const LoadedConfig& loaded, const CheckRequest& request, Communicator& world,
               const RunDevice& device) {
  RunCheck(loaded, request, world, device).go();
}

}  // namespace ptrain
