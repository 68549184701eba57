// ptrain generate: text from a model, as it comes.
#include <cstdio>
#include <set>

#include "kernels/base/log.h"
#include "launch/runtime.h"
#include "launch/verbs.h"
#include "parallel/comm/agree.h"
#include "src/data/model_text.h"
#include "src/data/tokenizer/tokenizer.h"
#include "src/infer/decoder.h"
#include "src/infer/sampler.h"
#include "src/io/json.h"
#include "src/train/base_model.h"
#include "src/train/config_plan.h"
#include "src/train/model_files.h"
#include "src/train/weight_check.h"

namespace ptrain {
namespace {

/// The prompt as token ids: rendered as a user's turn, or as it stands.
std::vector<int32_t> prompt_ids(const Arguments& arguments, const Tokenizer& tokenizer,
                                const ModelText& text) {
  const std::string prompt = arguments.required("prompt");
  if (!arguments.has("chat")) return tokenizer.encode(prompt, Special::add);
  const Json messages = Json::array({Json{{"role", "user"}, {"content", prompt}}});
  return tokenizer.encode(render_prompt(text, messages), Special::none);
}

void print_id(int32_t id, bool is_first) {
  fmt::print("{}{}", is_first ? "" : " ", id);
}

/// Everything that can be found wrong before the weights are read.
struct Task {
  ModelSpec spec;
  std::optional<HfDir> weights;
  std::unique_ptr<Tokenizer> tokenizer;
  ModelText text;
  std::vector<int32_t> prompt;
  int64_t count = 0;  // new tokens, at most
  SamplingRules sampling;
};

Task prepare(const Arguments& arguments, const LoadedConfig& loaded, int ranks) {
  refuse_special_tokens(loaded);
  const std::filesystem::path directory = loaded.config.model.path;
  Task task{.spec = read_model_spec(directory)};
  const ModelSpec& spec = task.spec;
  const int tensor = loaded.is_set("parallel.tensor") ? loaded.config.parallel.tensor : ranks;
  check(tensor == ranks, ExitCode::usage,
        "generate cuts a model by tensor alone: parallel.tensor = {}, but there are {} ranks; start {}",
        tensor, ranks, tensor);
  check(spec.H % tensor == 0, ExitCode::usage,
        "the model has {} attention heads, which {} ranks do not divide; start one rank, or a number that "
        "divides {}",
        spec.H, tensor, spec.H);
  task.weights = HfDir::open(directory);
  check_weights(spec, *task.weights);
  task.tokenizer = Tokenizer::load(directory);
  task.text = read_model_text(directory, task.tokenizer.get());
  task.prompt = prompt_ids(arguments, *task.tokenizer, task.text);
  check(!task.prompt.empty(), ExitCode::usage,
        "--prompt: an empty prompt; the tokenizer adds no begin-of-text token to it");
  for (const int32_t id : task.prompt) {
    check(id < spec.V, ExitCode::input,
          "the tokenizer gives id {}, but the model has only {} (config.json: vocab_size)", id, spec.V);
  }
  const auto length = static_cast<int64_t>(task.prompt.size());
  check(length < spec.max_positions, ExitCode::input, "--prompt: {} tokens, but the model has {} positions",
        length, spec.max_positions);
  task.count = std::min(arguments.integer("max-new-tokens", 128, 1), spec.max_positions - length);
  task.sampling = {.temperature = arguments.number("temperature", 0),
                   .top_k = arguments.integer("top-k", 0, 0),
                   .top_p = arguments.number("top-p", 1),
                   .seed = static_cast<uint64_t>(loaded.config.train.seed)};
  return task;
}

int generate(Runtime& runtime, const LoadedConfig& loaded) {
  const Arguments& arguments = runtime.arguments;
  Task task;
  agreed(runtime.world, [&] { task = prepare(arguments, loaded, runtime.world.size()); });
  const MeshComms comms = tensor_group(runtime);
  const Compute compute = compute_of(loaded.config, found_device(runtime.context.device));
  Decoder decoder(task.spec, comms.tensor.get(), runtime.context,
                  static_cast<int64_t>(task.prompt.size()) + task.count,
                  state_types(compute.precision).param);
  load_weights(runtime.world, *task.weights, {.spec = task.spec}, decoder.placed(), runtime.context,
               decoder.parameters());
  Sampler sampler(task.sampling);
  const std::set<int32_t> ends(task.text.eos_ids.begin(), task.text.eos_ids.end());
  StreamDecoder stream(*task.tokenizer, Skip::special);
  std::vector<int32_t> next = task.prompt;
  for (int64_t i = 0; i < task.count; ++i) {
    const int32_t id = sampler.next(decoder.forward(next));
    next.assign(1, id);
    const bool is_end = ends.contains(id);
    if (runtime.is_first()) {
      if (arguments.has("ids")) {
        print_id(id, i == 0);
      } else if (!is_end) {
        fmt::print("{}", stream.push(id));
      }
      std::fflush(stdout);
    }
    if (is_end) break;
  }
  if (runtime.is_first()) fmt::print("{}\n", arguments.has("ids") ? "" : stream.finish());
  return 0;
}

}  // namespace

int run_generate(const Arguments& arguments) {
  const LoadedConfig loaded = load_config(arguments, {"model.path"});
  const double temperature = arguments.number("temperature", 0), top_p = arguments.number("top-p", 1);
  check(temperature >= 0, ExitCode::usage, "--temperature {}: must not be negative", temperature);
  check(top_p > 0 && top_p <= 1, ExitCode::usage, "--top-p {}: must be above 0 and at most 1", top_p);
  return run_on_ranks(arguments, loaded.config, [&](Runtime& runtime) { return generate(runtime, loaded); });
}

}  // namespace ptrain
