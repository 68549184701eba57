#include "src/train/verify.h"

#include <algorithm>
#include <optional>

#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "src/train/config_check.h"
#include "src/train/model_files.h"
#include "src/train/plan_choice.h"
#include "src/train/run_data.h"
#include "src/train/weight_check.h"

namespace ptrain {
namespace {

constexpr int most_overflows = 40;  // fp16: halvings from the first loss scale to the smallest, and some

/// Why a rank cannot hold its part of a plan, or empty.
std::string objection_to(const Plan& plan, std::optional<int64_t> rank_bytes) {
  int64_t wanted = 0;
  for (int rank = 0; rank < plan.mesh.world(); ++rank) {
    if (plan.mesh.coordinate_of(rank).data > 0) continue;  // holds as much as its data group's first
    wanted = std::max(wanted, ledger_of(plan, rank).total_bytes());
  }
  if (!rank_bytes || wanted <= *rank_bytes) return {};
  constexpr double gib = 1 << 30;
  return fmt::format("a rank wants {:.2f} GiB and may hold {:.2f}", static_cast<double>(wanted) / gib,
                     static_cast<double>(*rank_bytes) / gib);
}

class Verification {
 public:
  Verification(const LoadedConfig& loaded, const VerifyRequest& request, Communicator& world,
               const RunDevice& device)
      : loaded_(loaded), config_(loaded.config), request_(request), world_(world), device_(device) {}

  std::vector<VariantReport> go();

 private:
  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) const {
    if (world_.rank() == 0) request_.say(fmt::format(text, std::forward<Args>(args)...));
  }

  void read_model();
  void read_data();
  Observed observe(const Variant& variant);
  StepResult step(Trainer& trainer, const Batches& batches, int64_t step) const;
  void watch(const Variant& variant, int step, Trainer& trainer) const {
    if (request_.after_step) request_.after_step(variant, step, trainer);
  }
  VariantReport judge(const Variant& variant);
  void say_rows(const std::string& name, const Observed& seen, const std::array<std::string, 2>& verdicts);

  const LoadedConfig& loaded_;
  const Config& config_;
  const VerifyRequest& request_;
  Communicator& world_;
  RunDevice device_;
  BaseModel base_;
  Compute compute_;
  Variant own_{.name = "the configuration's own plan"};
  std::vector<Variant> variants_;
  std::optional<int64_t> rank_bytes_;
  std::optional<HfDir> weights_;  // of a model that is not drawn at random
  std::optional<TextEncoder> encoder_;
  RunData data_;
  std::array<int64_t, 2> steps_{};  // those that are taken
  int64_t all_steps_ = 0;           // of the run, for the learning rate
  AllTolerances tolerances_;
  std::vector<std::string> names_;
  Observed reference_;
};

void Verification::read_model() {
  agreed(world_, [&] { check_config(loaded_, {.ranks = world_.size(), .hosts = request_.hosts}); });
  const Device& device = device_.context.device;
  compute_ = compute_of(config_, found_device(device));
  const Hardware room = room_of_ranks(world_, device, config_, request_.hosts);
  rank_bytes_ = request_.rank_bytes;
  if (!rank_bytes_) rank_bytes_ = memory_of_ranks(world_, device, compute_, request_.hosts);
  agreed(world_, [&] {
    base_ = read_base_model(config_);
    auto [plan, why] = chosen_plan(config_, base_.spec, world_.size(), compute_, room);
    own_.plan = std::move(plan);
    if (world_.rank() == 0 && !why.empty()) log::info("{}", why);
    const std::string objection = objection_to(own_.plan, rank_bytes_);
    check(objection.empty(), ExitCode::resources, "{}; see what `ptrain plan` advises", objection);
    variants_ = variants_of(
        config_, base_.spec, own_.plan,
        {.world = world_.size(), .compute = compute_, .hosts = request_.hosts, .most = request_.most});
    if (config_.model.init == Config::Init::pretrained) {
      weights_ = HfDir::open(config_.model.path);
      const std::vector<std::string> unused = check_weights(base_.stored_spec(), *weights_);
      if (world_.rank() == 0) warn_of_unused(*weights_, unused);
    }
    encoder_.emplace(config_.model.path, base_, config_.data.mask_prompt);
  });
  const ParallelConfig& parallel = own_.plan.parallel;
  tolerances_ = {.layers = tolerances_of_layers(compute_.precision, base_.spec),
                 .sums = tolerances_of_sums(parallel.global / parallel.micro)};
  names_ = trained_tensors(own_.plan);
}

/// The rows, and the first two steps of which there is something to learn.
void Verification::read_data() {
  data_ = open_run_data(config_, config_.data.train, "data.train", *encoder_, base_.spec, own_.plan.mesh.data,
                        true, {}, device_.context.threads, world_);
  agreed(world_, [&] {
    const Batches& batches = *data_.batches;
    const int64_t last = batches.steps_per_epoch(0) * 2;
    size_t found = 0;
    for (int64_t step = 1; step <= last && found < steps_.size(); ++step)
      if (batches.supervised(step) > 0) steps_[found++] = step;
    check(found == steps_.size(), ExitCode::input,
          "data.train: no token is supervised, so there is nothing to compare; see what "
          "`ptrain preprocess CONFIG --show 3` prints");
    all_steps_ = std::max(steps_.back(), config_.train.steps.value_or(batches.steps(config_.train.epochs)));
  });
}

/// A step that updates: in fp16 the first ones may only find the loss scale.
StepResult Verification::step(Trainer& trainer, const Batches& batches, int64_t step) const {
  StepResult result = trainer.step(batches, step, all_steps_);
  for (int i = 0; result.outcome == Outcome::scale_overflow && i < most_overflows; ++i)
    result = trainer.step(batches, step, all_steps_);
  check_finite(result);
  return result;
}

Observed Verification::observe(const Variant& variant) {
  const Batches batches(*data_.dataset, row_rules(config_.data),
                        {.micro = variant.plan.parallel.micro,
                         .global = variant.plan.parallel.global,
                         .data = variant.plan.mesh.data},
                        order_rules(config_, Shuffle::on));
  Trainer trainer(base_.spec, config_.optimizer, variant.plan, world_, device_);
  if (weights_) {
    load_weights(world_, *weights_, base_, trainer);
  } else {
    initialise_weights(static_cast<uint64_t>(config_.train.seed), trainer);
  }
  Observed seen;
  watch(variant, 0, trainer);
  seen.loaded = fingerprints_of_weights(trainer, world_);
  seen.unequal_replicas[0] = unequal_replicas(trainer, world_);
  seen.steps[0] = step(trainer, batches, steps_[0]);
  watch(variant, 1, trainer);
  seen.gradients = fingerprints_of_gradients(trainer, trainer.loss_scale().value(), world_);
  seen.steps[1] = step(trainer, batches, steps_[1]);
  watch(variant, 2, trainer);
  seen.weights = fingerprints_of_weights(trainer, world_);
  seen.unequal_replicas[1] = unequal_replicas(trainer, world_);
  return seen;
}

void Verification::say_rows(const std::string& name, const Observed& seen,
                            const std::array<std::string, 2>& verdicts) {
  for (size_t i = 0; i < 2; ++i) {
    say("{:<50} {:>6}  {:<13.9g} {:<12.7g} {}", i == 0 ? name : "", seen.steps[i].step, seen.steps[i].loss,
        seen.steps[i].grad_norm, verdicts[i]);
  }
}

VariantReport Verification::judge(const Variant& variant) {
  VariantReport report{.name = variant.name, .expected = variant.expected};
  report.skipped = objection_to(variant.plan, rank_bytes_);
  if (!report.skipped.empty()) {
    say("{:<50} skipped: {}", variant.name, report.skipped);
    return report;
  }
  try {
    const Observed seen = observe(variant);
    const Comparison comparison = compare(names_, reference_, seen, variant.expected, tolerances_);
    report.difference = comparison.difference;
    std::array<std::string, 2> verdicts;
    for (size_t i = 0; i < 2; ++i) {
      const Deviation& largest = comparison.largest[i];
      const bool differs = comparison.has_difference[i];
      if (!differs && variant.expected == Expected::same_bits) {
        verdicts[i] = "same bits";
        continue;
      }
      verdicts[i] = fmt::format("{:<9}  {:.1e} ({:.1e}) {}", differs ? "DIFFERS" : "ok", largest.size,
                                largest.allowed, largest.what);
    }
    say_rows(variant.name, seen, verdicts);
  } catch (const Error& error) {
    // All ranks see the same sums, and none is finite.
    if (error.code() != ExitCode::numerical) throw;
    report.difference = error.what();
    say("{:<50} DIFFERS: {}", variant.name, report.difference);
  }
  return report;
}

std::vector<VariantReport> Verification::go() {
  read_model();
  read_data();
  const Tolerances &sums = tolerances_.sums, &layers = tolerances_.layers;
  say("allowed in step 1 where sums over ranks and micro-batches differ: {:.1e} of loss, norm and gradients",
      sums.loss);
  say("allowed where sums within layers differ: {:.1e} of the loss, {:.1e} of the norm, {:.1e} of a gradient",
      layers.loss, layers.grad_norm, layers.gradient);
  say("{:<50} {:>6}  {:<13} {:<12} {:<9}  {}", "variant", "step", "loss", "norm", "", "largest (allowed)");
  reference_ = observe(own_);
  say_rows(own_.name, reference_, {"reference", "reference"});
  std::vector<VariantReport> reports;
  if (const std::string own = objection_to_replicas(reference_); !own.empty()) {
    say("{:<50} DIFFERS: {}", own_.name, own);
    reports.push_back({.name = own_.name, .difference = own});
  }
  for (const Variant& variant : variants_) reports.push_back(judge(variant));
  return reports;
}

}  // namespace

std::vector<VariantReport> verify_run(const LoadedConfig& loaded, const VerifyRequest& request,
                                      Communicator& world, const RunDevice& device) {
  return Verification(loaded, request, world, device).go();
}

std::string verdict(const std::vector<VariantReport>& reports) {
  size_t tried = 0, off = 0;
  const VariantReport* first = nullptr;
  for (const VariantReport& report : reports) {
    tried += report.skipped.empty();
    off += !report.difference.empty();
    if (first == nullptr && !report.difference.empty()) first = &report;
  }
  if (first == nullptr) {
    const size_t skipped = reports.size() - tried;
    return fmt::format("all {} variants agree with the configuration's own plan{}", tried,
                       skipped == 0 ? "" : fmt::format("; {} did not fit the memory", skipped));
  }
  return fmt::format("{} of {} variants differ from the configuration's own plan; {}: {}", off, tried,
                     first->name, first->difference);
}

void check_agreement(const std::vector<VariantReport>& reports, Communicator& world) {
  agreed(world, [&] {
    const bool is_off =
        std::ranges::any_of(reports, [](const VariantReport& report) { return !report.difference.empty(); });
    check(
        !is_off, ExitCode::numerical,
        "{}; find out before you train with what it changes: run verify again, and where the same plan gives "
        "other bits look for a faulty machine",
        verdict(reports));
  });
}

}  // namespace ptrain
