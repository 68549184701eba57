// ptrain bench decode: prefill of a prompt and then token after token at batch 1, against the memory's speed.
#include "launch/bench/bench.h"
#include "launch/bench/limits.h"
#include "launch/bench/random_weights.h"
#include "launch/bench/timing.h"
#include "parallel/comm/agree.h"
#include "src/infer/decoder.h"
#include "src/train/config_plan.h"
#include "src/train/model_files.h"

namespace ptrain::bench {
namespace {

/// Bytes that all ranks read for one token behind `position` cached ones: every matrix once, keys and values.
double bytes_of_token(const ModelSpec& spec, double position, DType dtype) {
  const double weights = static_cast<double>(matmul_parameters(spec));
  const double cache = static_cast<double>(2 * spec.L * spec.K * spec.D) * position;
  return static_cast<double>(size_bytes(dtype)) * (weights + cache);
}

std::vector<int32_t> made_up_prompt(int64_t length, int64_t V) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>((i * 7919 + 17) % V));
  return ids;
}

/// The model's own weights, or made-up ones, for which config.json is enough.
void load_or_make_weights(Runtime& runtime, const Config& config, const ModelSpec& spec, Decoder& decoder) {
  if (config.model.init == Config::Init::random)
    return make_up_weights(runtime.context, spec, decoder.placed(), decoder.parameters());
  std::optional<HfDir> files;
  agreed(runtime.world, [&] { files = HfDir::open(config.model.path); });
  load_weights(runtime.world, *files, {.spec = spec}, decoder.placed(), runtime.context,
               decoder.parameters());
}

}  // namespace

Report run_decode(Runtime& runtime, const LoadedConfig& loaded) {
  const std::filesystem::path directory = loaded.config.model.path;
  const int64_t length = runtime.arguments.integer("prompt-length", 256, 2, 1 << 20);
  const int64_t count = runtime.arguments.integer("tokens", 64, 1, 1 << 20);
  ModelSpec spec;
  agreed(runtime.world, [&] {
    refuse_special_tokens(loaded);
    spec = read_model_spec(directory);
    const int ranks = runtime.world.size();
    check(spec.H % ranks == 0, ExitCode::usage,
          "the model has {} attention heads, which {} ranks do not divide", spec.H, ranks);
    check(length + count <= spec.max_positions, ExitCode::usage,
          "--prompt-length {} and --tokens {} are more than the model's {} positions", length, count,
          spec.max_positions);
  });
  const MeshComms comms = tensor_group(runtime);
  const Compute compute = compute_of(loaded.config, found_device(runtime.context.device));
  const DType dtype = state_types(compute.precision).param;
  std::optional<Decoder> made;
  agreed(runtime.world,
         [&] { made.emplace(spec, comms.tensor.get(), runtime.context, length + count, dtype); });
  Decoder& decoder = *made;
  load_or_make_weights(runtime, loaded.config, spec, decoder);

  const std::vector<int32_t> prompt = made_up_prompt(length, spec.V);
  const Times prefill = measure_together(
      runtime.world,
      [&] {
        decoder.clear();
        decoder.forward(prompt);
      },
      1.0);
  std::vector<double> seconds;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t id = prompt[static_cast<size_t>(i % length)];
    const double begin_s = now_s();
    decoder.forward(std::span(&id, 1));
    seconds.push_back(now_s() - begin_s);
  }
  const Times token = times_of(seconds);
  runtime.world.barrier();
  const bool is_cpu = runtime.gpu == nullptr;
  const double memory = sum_over_ranks(
      runtime.world, is_cpu ? read_bytes_per_s(runtime.context.threads) : copy_bytes_per_s(runtime.context));

  const double bytes =
      bytes_of_token(spec, static_cast<double>(length) + static_cast<double>(count) / 2, dtype);
  const double rate = static_cast<double>(length) / prefill.median_s;
  const double best_rate = static_cast<double>(length) / prefill.best_s;
  Report report;
  report.values = {{"ranks", runtime.world.size()},
                   {"threads", runtime.context.threads},
                   {"device", device_name(runtime)},
                   {"dtype", name_of(dtype)},
                   {"prompt_length", length},
                   {"tokens", count},
                   {"token_median_s", token.median_s},
                   {"token_best_s", token.best_s},
                   {"prefill_tokens_per_s", rate},
                   {"prefill_best_tokens_per_s", best_rate},
                   {"bytes_of_token", bytes},
                   {is_cpu ? "read_bytes_per_s" : "copy_bytes_per_s", memory},
                   {is_cpu ? "share_of_reading" : "share_of_copy", bytes / token.median_s / memory}};
  report.text = fmt::format(
      "{}, {}, batch 1, {} ranks of {} threads, a prompt of {} tokens, then {}\n"
      "decode          median {:.2f} ms/token, best {:.2f}\n"
      "reading         {:.3f} GB a token: {:.1f} GB/s, {:.1f} % of the {:.1f} that {}\n"
      "prefill         median {:.0f} tokens/s, best {:.0f}\n",
      device_name(runtime), name_of(dtype), runtime.world.size(), runtime.context.threads, length, count,
      1e3 * token.median_s, 1e3 * token.best_s, 1e-9 * bytes, 1e-9 * bytes / token.median_s,
      100 * bytes / token.median_s / memory, 1e-9 * memory, is_cpu ? "reading alone reaches" : "copies reach",
      rate, best_rate);
  return report;
}

}  // namespace ptrain::bench
