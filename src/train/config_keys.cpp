#include "src/train/config_keys.h"

#include <algorithm>
#include <optional>
#include <type_traits>

#include "kernels/base/error.h"
#include "parallel/plan/workload.h"

namespace ptrain {
namespace {

using KeyKind = Key::Kind;

template <class T>
struct Unwrapped {
  using type = T;
};
template <class T>
struct Unwrapped<std::optional<T>> {
  using type = T;
};

template <class T>
constexpr KeyKind kind_of_field() {
  if constexpr (std::is_same_v<T, bool>) return KeyKind::boolean;
  if constexpr (std::is_enum_v<T>) return KeyKind::choice;
  if constexpr (std::is_integral_v<T>) return KeyKind::integer;
  if constexpr (std::is_floating_point_v<T>) return KeyKind::number;
  if constexpr (std::is_same_v<T, std::vector<std::string>>) return KeyKind::paths;
  if constexpr (std::is_same_v<T, std::array<double, 2>>) return KeyKind::two_numbers;
  return KeyKind::text;
}

template <class T>
Value to_value(const T& field) {
  if constexpr (std::is_same_v<T, bool>) {
    return field;
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return static_cast<int64_t>(field);
  } else {
    return field;
  }
}

template <class T>
T from_value(const Value& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return std::get<bool>(value);
  } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
    return static_cast<T>(std::get<int64_t>(value));
  } else {
    return std::get<T>(value);
  }
}

/// A row of the table: the field is reached through the named members, one after the other.
template <auto... members>
Key row(Key key) {
  using Field = std::remove_cvref_t<decltype((std::declval<Config&>().*....*members))>;
  using Bare = typename Unwrapped<Field>::type;
  constexpr bool is_optional = !std::is_same_v<Field, Bare>;
  if (key.kind == KeyKind::text) key.kind = kind_of_field<Bare>();
  key.get = [](const Config& config) -> Value {
    const Field& field = (config.*....*members);
    if constexpr (is_optional) {
      return field ? to_value<Bare>(*field) : Value{};
    } else {
      return to_value<Bare>(field);
    }
  };
  key.set = [](Config& config, const Value& value) {
    Field& field = (config.*....*members);
    if constexpr (is_optional) {
      if (std::holds_alternative<std::monostate>(value)) {
        field.reset();
        return;
      }
    }
    field = from_value<Bare>(value);
  };
  return key;
}

using C = Config;
constexpr double max_ranks = 1e6;   // so that products of three mesh sizes fit 64 bits
constexpr double max_count = 1e15;  // exact in a double, and a sum of some fits 64 bits
constexpr double max_rows = 1e9;

std::vector<Key> general_keys() {
  return {
      row<&C::output>({.path = "output",
                       .help = "directory of everything the run writes",
                       .is_required = true,
                       .kind = KeyKind::path}),
      row<&C::device>({.path = "device",
                       .help = "where the arithmetic runs; auto = a GPU where one is",
                       .choices = {"auto", "cuda", "cpu"}}),
      row<&C::precision>({.path = "precision",
                          .help = "number format; auto = bf16 on a GPU that has it, fp32 on a CPU",
                          .choices = {"auto", "fp32", "bf16", "fp16", "fp8"}}),
      row<&C::model, &C::Model::path>(
          {.path = "model.path",
           .help = "Hugging Face directory or checkpoint (its weights only), here or s3://",
           .is_required = true,
           .kind = KeyKind::path}),
      row<&C::model, &C::Model::init>({.path = "model.init",
                                       .help = "weights from the files, or random ones by config.json alone",
                                       .choices = {"pretrained", "random"}}),
      row<&C::model, &C::Model::new_token_init>({.path = "model.new_token_init",
                                                 .help = "rows added for special tokens",
                                                 .choices = {"normal", "mean"}}),
  };
}

std::vector<Key> parallel_keys() {
  using P = C::Parallel;
  return {
      row<&C::parallel, &P::tensor>({.path = "parallel.tensor",
                                     .unit = "ranks",
                                     .help = "ranks that share each layer",
                                     .min = 1,
                                     .max = max_ranks}),
      row<&C::parallel, &P::pipeline>({.path = "parallel.pipeline",
                                       .unit = "ranks",
                                       .help = "stages that the layers are cut into",
                                       .min = 1,
                                       .max = max_ranks}),
      row<&C::parallel, &P::data>({.path = "parallel.data",
                                   .unit = "ranks",
                                   .help = "replicas; auto = world / (tensor * pipeline)",
                                   .absent = "auto",
                                   .min = 1,
                                   .max = max_ranks}),
      row<&C::parallel, &P::schedule>(
          {.path = "parallel.schedule",
           .help = "order of the micro-batches in the pipeline; auto: the best that fits the memory",
           .choices = {"gpipe", "1f1b", "interleaved", "zero_bubble", "auto"}}),
      row<&C::parallel, &P::virtual_stages>(
          {.path = "parallel.virtual_stages",
           .unit = "chunks",
           .help =
               "model chunks per rank: interleaved any number; zero_bubble 1 = H1, 2 = ZB-V; with schedule "
               "auto 1 leaves it open",
           .min = 1,
           .max = 1000}),
      row<&C::parallel, &P::sequence_parallel>(
          {.path = "parallel.sequence_parallel",
           .help = "cut the rows between tensor-parallel layers too; auto = on when tensor > 1",
           .absent = "auto"}),
      row<&C::parallel, &P::tensor_strips>(
          {.path = "parallel.tensor_strips",
           .unit = "strips",
           .help = "strips of rows in which layers of a tensor group compute, so that one travels beside "
                   "another's products; auto = 2 on GPUs with 2,048 rows a micro-batch or more, else 1",
           .absent = "auto",
           .min = 1,
           .max = max_tensor_strips}),
      row<&C::parallel, &P::zero>(
          {.path = "parallel.zero",
           .help = "cut over the replicas: 1 optimizer, 2 gradients, 3 parameters too",
           .min = 0,
           .max = 3}),
      row<&C::parallel, &P::offload>({.path = "parallel.offload",
                                      .help = "optimizer = moments and master weights in host memory",
                                      .choices = {"none", "optimizer"}}),
      row<&C::parallel, &P::allow_tensor_across_nodes>(
          {.path = "parallel.allow_tensor_across_nodes",
           .help = "accept tensor groups that span nodes, which is slow"}),
      row<&C::parallel, &P::allow_slow_network>(
          {.path = "parallel.allow_slow_network",
           .help = "accept TCP between nodes that have EFA or InfiniBand, which is slow"}),
      row<&C::parallel, &P::share_devices>(
          {.path = "parallel.share_devices", .help = "let several ranks compute on one GPU"}),
  };
}

std::vector<Key> data_keys() {
  using D = C::Data;
  return {
      row<&C::data, &D::train>({.path = "data.train",
                                .help = "files or patterns, here or s3://: .jsonl, or .h5 made by preprocess",
                                .is_required = true}),
      row<&C::data, &D::validation>({.path = "data.validation", .help = "the same, for evaluations"}),
      row<&C::data, &D::sequence_length>({.path = "data.sequence_length",
                                          .unit = "tokens",
                                          .help = "length of a row, at most the model's maximum",
                                          .min = 1,
                                          .max = max_rows}),
      row<&C::data, &D::packing>(
          {.path = "data.packing", .help = "several documents in a row, attention kept inside each"}),
      row<&C::data, &D::overlong>(
          {.path = "data.overlong",
           .help = "documents longer than a row; auto = split with packing, else truncate",
           .choices = {"auto", "split", "truncate", "drop", "error"}}),
      row<&C::data, &D::shuffle>(
          {.path = "data.shuffle", .help = "a new order each epoch, fixed by the seed"}),
      row<&C::data, &D::mask_prompt>(
          {.path = "data.mask_prompt", .help = "supervise answers only, where the row says what is prompt"}),
      row<&C::data, &D::special_tokens>({.path = "data.special_tokens",
                                         .help = "JSON file {\"tokens\": [\"[SEP]\", …]} of tokens to add",
                                         .absent = "null",
                                         .kind = KeyKind::path}),
      row<&C::batch, &C::Batch::micro>({.path = "batch.micro",
                                        .unit = "rows",
                                        .help = "rows per micro-batch and data-parallel rank",
                                        .min = 1,
                                        .max = max_rows}),
      row<&C::batch, &C::Batch::global>(
          {.path = "batch.global",
           .unit = "rows",
           .help = "rows per optimizer step over all ranks; a multiple of micro * data",
           .min = 1,
           .max = max_rows}),
  };
}

std::vector<Key> optimizer_keys() {
  using O = C::Optimizer;
  return {
      row<&C::optimizer, &O::learning_rate>(
          {.path = "optimizer.learning_rate", .help = "the peak", .min = 0}),
      row<&C::optimizer, &O::schedule>({.path = "optimizer.schedule",
                                        .help = "learning rate after the warm-up",
                                        .choices = {"constant", "linear", "cosine", "wsd"}}),
      row<&C::optimizer, &O::warmup_steps>({.path = "optimizer.warmup_steps",
                                            .unit = "steps",
                                            .help = "linear from 0 to the peak; 0 = none",
                                            .min = 0,
                                            .max = max_count}),
      row<&C::optimizer, &O::min_ratio>(
          {.path = "optimizer.min_ratio", .help = "last learning rate / peak", .min = 0, .max = 1}),
      row<&C::optimizer, &O::decay_fraction>(
          {.path = "optimizer.decay_fraction",
           .help = "wsd: the last part of the steps, linear down to min_ratio",
           .min = 0,
           .max = 1}),
      row<&C::optimizer, &O::betas>({.path = "optimizer.betas",
                                     .help = "Adam's decay of the first and the second moment",
                                     .min = 0,
                                     .max = 1,
                                     .is_max_open = true}),
      row<&C::optimizer, &O::epsilon>(
          {.path = "optimizer.epsilon", .help = "Adam's epsilon", .min = 0, .is_min_open = true}),
      row<&C::optimizer, &O::weight_decay>(
          {.path = "optimizer.weight_decay",
           .help = "decoupled, on tensors of 2 or more dimensions; not on norms and biases",
           .min = 0}),
      row<&C::optimizer, &O::clip_grad_norm>(
          {.path = "optimizer.clip_grad_norm", .help = "largest global gradient norm; 0 = off", .min = 0}),
  };
}

std::vector<Key> run_keys() {
  using T = C::Train;
  using K = C::Checkpoint;
  return {
      row<&C::train, &T::epochs>({.path = "train.epochs",
                                  .unit = "epochs",
                                  .help = "passes over the training data",
                                  .min = 1,
                                  .max = max_rows}),
      row<&C::train, &T::steps>({.path = "train.steps",
                                 .unit = "steps",
                                 .help = "optimizer steps in all; wins over epochs",
                                 .absent = "null",
                                 .min = 1,
                                 .max = max_count}),
      row<&C::train, &T::seed>({.path = "train.seed",
                                .help = "of random weights and of the data's order",
                                .min = 0,
                                .max = max_count}),
      row<&C::train, &T::recompute>(
          {.path = "train.recompute",
           .help = "activations computed again in backward instead of kept; auto: the least that fits",
           .choices = {"none", "selective", "full", "auto"}}),
      row<&C::train, &T::deterministic>(
          {.path = "train.deterministic",
           .help = "true fixes the algorithms; grid makes the bits the same on every grid",
           .choices = {"false", "true", "grid"}}),
      row<&C::train, &T::hang_timeout_s>(
          {.path = "train.hang_timeout_s",
           .unit = "seconds",
           .help = "no progress for so long is a hang, at least 1; 0 = no watch",
           .min = 0}),
      row<&C::train, &T::max_bad_steps>(
          {.path = "train.max_bad_steps",
           .unit = "steps",
           .help = "in a row without a finite loss and gradient: skipped, then the run goes back to its last "
                   "snapshot, once; 0 = stop at the first one",
           .min = 0,
           .max = max_rows}),
      row<&C::train, &T::spike_threshold>(
          {.path = "train.spike_threshold",
           .unit = "robust standard deviations",
           .help =
               "a loss or gradient norm so far above the median of the last 64 steps is warned of; 0 = off",
           .min = 0}),
      row<&C::train, &T::check_replicas_every>(
          {.path = "train.check_replicas_every",
           .unit = "steps",
           .help = "between comparisons of weights that several ranks hold, and before every checkpoint; "
                   "0 = never",
           .min = 0,
           .max = max_count}),
      row<&C::train, &T::max_fruitless_starts>(
          {.path = "train.max_fruitless_starts",
           .unit = "starts",
           .help = "in a row from the same step that did not end in order, then no more (exit code 67); "
                   "0 = any number",
           .min = 0,
           .max = max_rows}),
      row<&C::checkpoint, &K::every>({.path = "checkpoint.every",
                                      .unit = "steps",
                                      .help = "between checkpoints; 0 = only at the end",
                                      .min = 0,
                                      .max = max_count}),
      row<&C::checkpoint, &K::keep>({.path = "checkpoint.keep",
                                     .unit = "checkpoints",
                                     .help = "how many are kept, the newest",
                                     .min = 1,
                                     .max = max_rows}),
      row<&C::checkpoint, &K::storage>({.path = "checkpoint.storage",
                                        .help = "whether all nodes see the same output directory",
                                        .choices = {"auto", "shared", "per_node"}}),
      row<&C::checkpoint, &K::replicas>({.path = "checkpoint.replicas",
                                         .unit = "nodes",
                                         .help = "per_node: copies on that many nodes",
                                         .min = 1,
                                         .max = 1000}),
      row<&C::checkpoint, &K::asynchronous>(
          {.path = "checkpoint.asynchronous", .help = "write while the next steps run"}),
      row<&C::checkpoint, &K::dtype>(
          {.path = "checkpoint.dtype",
           .help = "of the safetensors; auto = the source's, fp32 for init: random",
           .choices = {"auto", "fp32", "bf16", "fp16"}}),
      row<&C::checkpoint, &K::upload>({.path = "checkpoint.upload",
                                       .help = "s3://bucket/prefix to copy checkpoints to",
                                       .absent = "null"}),
      row<&C::checkpoint, &K::upload_bytes_per_s>({.path = "checkpoint.upload_bytes_per_s",
                                                   .unit = "bytes per second",
                                                   .help = "no faster up than that; 0 = as fast as it goes",
                                                   .min = 0,
                                                   .max = max_count}),
      row<&C::evaluation, &C::Evaluation::every>({.path = "evaluation.every",
                                                  .unit = "steps",
                                                  .help = "between evaluations; 0 = never",
                                                  .min = 0,
                                                  .max = max_count}),
      row<&C::evaluation, &C::Evaluation::keep_best>(
          {.path = "evaluation.keep_best", .help = "model/ is the best by validation loss, not the last"}),
      row<&C::log, &C::Log::every>(
          {.path = "log.every", .unit = "steps", .help = "between step lines", .min = 1, .max = max_count}),
      row<&C::log, &C::Log::level>({.path = "log.level",
                                    .help = "least important messages on stderr",
                                    .choices = {"debug", "info", "warning", "error"}}),
      row<&C::log, &C::Log::tensorboard>({.path = "log.tensorboard", .help = "write TensorBoard events"}),
      row<&C::log, &C::Log::trace>(
          {.path = "log.trace",
           .help = "write <output>/trace.json: what each rank did when, in the steps that log.every names"}),
  };
}

std::vector<Key> all_keys() {
  std::vector<Key> keys;
  for (auto* part : {general_keys, parallel_keys, data_keys, optimizer_keys, run_keys}) {
    std::ranges::move(part(), std::back_inserter(keys));
  }
  return keys;
}

}  // namespace

std::span<const Key> config_keys() {
  static const std::vector<Key> keys = all_keys();
  return keys;
}

const Key* find_key(std::string_view path) {
  const auto keys = config_keys();
  const auto it = std::ranges::find(keys, path, &Key::path);
  return it == keys.end() ? nullptr : &*it;
}

}  // namespace ptrain
