#include "src/train/evaluate.h"

#include <algorithm>
#include <deque>
#include <map>

#include "parallel/comm/agree.h"
#include "src/io/safetensors.h"
#include "src/train/model_files.h"
#include "src/train/run_data.h"
#include "src/train/run_plan.h"
#include "src/train/weight_check.h"

namespace ptrain {
namespace {

/// Collects the logits of every document on rank 0 of the world, which receives them micro-batch by
/// micro-batch.
class LogitsCollector {
 public:
  LogitsCollector(const Trainer& trainer, const Batches& batches, const DocumentSource& source, int64_t V,
                  Communicator& world)
      : trainer_(trainer), batches_(batches), source_(source), V_(V), world_(world) {}

  /// What a last stage hands over. Ranks other than 0 send it there; rank 0 may be a last stage itself.
  void take(int64_t step, int micro, Tensor logits) {
    const int data = trainer_.coordinate().data;
    if (world_.rank() == 0) return keep(step, data, micro, logits);
    // Rank 0 receives after its own part is done: what is sent stays here until then.
    OwnedTensor& copy = sent_.emplace_back(logits.shape, logits.dtype);
    std::copy_n(logits.as<float>(), logits.numel(), copy.view.as<float>());
    transfers_.push_back(world_.isend(copy.view, 0, Lane::control));
  }

  /// A collective, after evaluate(): what the others have sent comes to rank 0. The order is theirs, lane by
  /// lane.
  void finish(int64_t steps) {
    if (world_.rank() == 0) receive(steps);
    for (Transfer& transfer : transfers_) transfer.wait();
  }

  void write(const std::string& path) const {
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const auto& [sample, logits] : documents_)
      tensors.emplace_back(fmt::format("logits.{}", sample), logits.view);
    write_safetensors(path, tensors);
  }

 private:
  void receive(int64_t steps) {
    const Plan& plan = trainer_.plan();
    for (int data = 0; data < plan.mesh.data; ++data) {
      const int from = plan.mesh.rank_of({.pipeline = plan.mesh.pipeline - 1, .data = data, .tensor = 0});
      if (from == 0) continue;
      OwnedTensor logits({plan.rows, V_}, DType::f32);
      for (int64_t step = 1; step <= steps; ++step) {
        for (int micro = 0; micro < plan.micros; ++micro) {
          world_.irecv(logits.view, from, Lane::control).wait();
          keep(step, data, micro, logits.view);
        }
      }
    }
  }

  void keep(int64_t step, int data, int micro, Tensor logits) {
    const int64_t B = trainer_.plan().parallel.micro, T = trainer_.plan().parallel.sequence_length;
    const int64_t first_row = (int64_t{data} * trainer_.plan().micros + micro) * B;
    for (int64_t b = 0; b < B; ++b) {
      int64_t t = 0;
      for (const Part& part : batches_.parts(step, first_row + b)) {
        OwnedTensor& document = documents_[part.sample];
        if (!document.view) document = OwnedTensor({source_.length(part.sample), V_}, DType::f32);
        const float* from = logits.as<float>() + (b * T + t) * V_;
        std::copy_n(from, part.count * V_, document.view.as<float>() + part.begin * V_);
        t += part.count;
      }
    }
  }

  const Trainer& trainer_;
  const Batches& batches_;
  const DocumentSource& source_;
  int64_t V_;
  Communicator& world_;
  std::map<int64_t, OwnedTensor> documents_;
  std::deque<OwnedTensor> sent_;
  std::vector<Transfer> transfers_;
};

int64_t longest(const DocumentSource& source) {
  int64_t length = 1;
  for (int64_t sample = 0; sample < source.size(); ++sample) length = std::max(length, source.length(sample));
  return length;
}

}  // namespace

EvaluationReport evaluate_files(const LoadedConfig& loaded, Communicator& world, const RunDevice& device,
                                const std::string& logits_file) {
  Config config = loaded.config;
  BaseModel base;
  std::optional<TextEncoder> encoder;
  std::optional<HfDir> directory;
  agreed(world, [&] {
    base = read_base_model(config);
    directory = HfDir::open(config.model.path);
    const std::vector<std::string> unused = check_weights(base.stored_spec(), *directory);
    if (world.rank() == 0) warn_of_unused(*directory, unused);
    encoder.emplace(config.model.path, base, config.data.mask_prompt);
    check(config.parallel.tensor * config.parallel.pipeline <= world.size(), ExitCode::usage,
          "tensor * pipeline = {} * {} = {}, but there are {} ranks", config.parallel.tensor,
          config.parallel.pipeline, config.parallel.tensor * config.parallel.pipeline, world.size());
  });
  const auto dataset = open_dataset({.files = config.data.train,
                                     .key = "data.train",
                                     .vocabulary_size = base.spec.V,
                                     .threads = device.context.threads},
                                    encoder->encoding(), world);
  if (!loaded.is_set("data.sequence_length"))
    config.data.sequence_length = std::min(base.spec.max_positions, longest(*dataset));
  if (!loaded.is_set("batch.global"))
    config.batch.global = config.batch.micro * data_ranks(config, world.size());
  // Nothing is updated: there is no state to share out, and every rank keeps what it computes with.
  config.parallel.zero = std::min(config.parallel.zero, 1);
  config.parallel.offload = Config::Offload::none;
  std::optional<Plan> plan;
  std::optional<Batches> rows;
  agreed(world, [&] {
    plan = plan_of(config, base.spec, world.size(), compute_of(config, found_device(device.context.device)),
                   "there are");
    rows.emplace(
        *dataset, row_rules(config.data),
        BatchGeometry{.micro = config.batch.micro, .global = config.batch.global, .data = plan->mesh.data},
        OrderRules{.seed = 1, .shuffle = Shuffle::off});
  });
  const Batches& batches = *rows;

  Trainer trainer(base.spec, config.optimizer, *plan, world, device, Pass::evaluate);
  load_weights(world, *directory, base, trainer.model().placed(), trainer.model().context(),
               trainer.model().parameters());
  const int64_t steps = batches.steps_per_epoch(0);
  if (logits_file.empty()) return {.evaluation = trainer.evaluate(batches, steps), .rows = dataset->size()};

  LogitsCollector collector(trainer, batches, *dataset, base.spec.V, world);
  const EvaluationReport report{.evaluation = trainer.evaluate(batches, steps,
                                                               [&](int64_t step, int micro, Tensor logits) {
                                                                 collector.take(step, micro, logits);
                                                               }),
                                .rows = dataset->size()};
  collector.finish(steps);
  agreed(world, [&] {
    if (world.rank() == 0) collector.write(logits_file);
  });
  return report;
}

}  // namespace ptrain
