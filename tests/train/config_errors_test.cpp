// Wrong configurations: each is refused with its place, what was expected and what to do.
#include <gtest/gtest.h>

#include <string>

#include "kernels/base/error.h"
#include "src/train/config_check.h"
#include "src/train/config_keys.h"
#include "src/train/config_load.h"
#include "src/train/foreign_keys.h"

namespace ptrain {
namespace {

const std::string complete = "output: runs/x\nmodel: {path: m}\ndata: {train: [a.jsonl]}\n";  // three lines

struct Wrong {
  std::string text;     // behind `complete` unless it starts with "!"
  std::string place;    // at the start of the message
  std::string message;  // somewhere in it
};

/// The message of loading that text as run.yaml, checked for a world of 8; empty when it is accepted.
std::string message_of(const std::string& text, std::vector<Override> overrides = {}) {
  try {
    LoadRequest request;
    request.required = required_keys();
    request.overrides = std::move(overrides);
    const LoadedConfig loaded = load_config_text(text, "run.yaml", request);
    check_config(loaded, {8, "mpirun started"});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage) << error.what();
    return error.what();
  }
  return "";
}

std::string nested(int depth) {
  return "train: " + std::string(depth, '[') + std::string(depth, ']') + "\n";
}

const Wrong wrong_files[] = {
    // Keys
    {"paralel: {tensor: 2}\n", "run.yaml:4:1", "unknown key paralel; did you mean parallel, a section?"},
    {"parallel:\n  tensr: 2\n", "run.yaml:5:3", "unknown key parallel.tensr; did you mean parallel.tensor?"},
    {"tensor: 2\n", "run.yaml:4:1", "unknown key tensor; did you mean parallel.tensor?"},
    {"train: {learning_rate: 1}\n", "run.yaml:4:9", "did you mean optimizer.learning_rate?"},
    {"train: {xyzzy: 1}\n", "run.yaml:4:9", "the keys of train are epochs, steps, seed"},
    {"xyzzy: 1\n", "run.yaml:4:1", "there are output, device, precision, model, parallel"},
    {"output: again\n", "run.yaml:4:1", "the key \"output\" appears twice, first in line 1"},
    {"batch:\n  micro: 1\n  global: 64\n  micro: 2\n", "run.yaml:7:3", "appears twice, first in line 5"},
    {"data: {packing: true}\n", "run.yaml:4:1", "the key \"data\" appears twice"},
    {"parallel.tensor: 2\n", "run.yaml:4:1", "put tensor below parallel"},
    {"1: 2\n", "run.yaml:4:1", "unknown key 1"},
    {"? [a, b]\n: 1\n", "run.yaml:4:3", "a list or a map stands where a key was expected"},
    {"<<: {a: 1}\n", "run.yaml:4:1", "unknown key <<"},
    // Other trainers' names
    {"per_device_train_batch_size: 4\n", "run.yaml:4:1", "what HF Trainer calls so is batch.micro here"},
    {"train: {gradient_accumulation_steps: 8}\n", "run.yaml:4:9", "is batch.global here: micro * data ranks"},
    {"adapter: lora\n", "run.yaml:4:1", "axolotl has it, here there is none: not built"},
    // Sections
    {"parallel: 8\n", "run.yaml:4:1", "parallel must be a map of keys (tensor, pipeline, data"},
    {"batch: [1, 64]\n", "run.yaml:4:1", "batch must be a map of keys (micro, global), not a list"},
    {"device: {cuda: 0}\n", "run.yaml:4:9", "device must be one of auto, cuda, cpu, not a map of keys"},
    // Integers
    {"batch: {micro: one}\n", "run.yaml:4:16", "batch.micro must be an integer of at least 1, not \"one\""},
    {"batch: {micro: 1.0}\n", "run.yaml:4:16", "batch.micro must be an integer"},
    {"batch: {micro: 1e3}\n", "run.yaml:4:16", "batch.micro must be an integer"},
    {"batch: {micro: 0x10}\n", "run.yaml:4:16", "batch.micro must be an integer"},
    {"batch: {micro: \"1\"}\n", "run.yaml:4:16", "the text \"1\" in quotes; leave the quotes out"},
    {"batch: {micro: 010}\n", "run.yaml:4:16", "leading 0"},
    {"batch: {micro: 0}\n", "run.yaml:4:16", "at least 1, not \"0\""},
    {"batch: {micro: -4}\n", "run.yaml:4:16", "at least 1, not \"-4\""},
    {"batch: {micro: }\n", "run.yaml:4:9", "not nothing (null)"},
    {"batch: {micro: [1]}\n", "run.yaml:4:16", "not a list"},
    {"train: {seed: 99999999999999999999}\n", "run.yaml:4:15", "does not fit 64 bits"},
    {"train: {seed: -1}\n", "run.yaml:4:15", "an integer of at least 0"},
    {"parallel: {tensor: 3000000}\n", "run.yaml:4:20", "3000000 is too large: it must be at most 1000000"},
    {"parallel: {zero: 4}\n", "run.yaml:4:18", "parallel.zero = 4 is too large: it must be at most 3"},
    {"parallel: {data: none}\n", "run.yaml:4:18", "an integer of at least 1, or auto, not \"none\""},
    {"parallel: {data: null}\n", "run.yaml:4:12", "or auto, not nothing"},
    // Numbers
    {"optimizer: {learning_rate: fast}\n", "run.yaml:4:28", "a number of at least 0, not \"fast\""},
    {"optimizer: {learning_rate: 1e}\n", "run.yaml:4:28", "a number of at least 0"},
    {"optimizer: {learning_rate: .inf}\n", "run.yaml:4:28", "a number of at least 0"},
    {"optimizer: {learning_rate: nan}\n", "run.yaml:4:28", "a number of at least 0"},
    {"optimizer: {learning_rate: 1e999}\n", "run.yaml:4:28", "does not fit a double"},
    {"optimizer: {learning_rate: -1e-5}\n", "run.yaml:4:28", "a number of at least 0"},
    {"optimizer: {min_ratio: 1.5}\n", "run.yaml:4:24", "1.5 is too large: it must be at most 1"},
    {"optimizer: {epsilon: 0}\n", "run.yaml:4:22", "a number larger than 0"},
    {"optimizer: {betas: 0.9}\n", "run.yaml:4:20", "two numbers"},
    {"optimizer: {betas: [0.9, 0.95, 0.99]}\n", "run.yaml:4:20", "there are 3"},
    {"optimizer: {betas: [0.9, 1.0]}\n", "run.yaml:4:20", "must be below 1"},
    {"train: {hang_timeout_s: -1}\n", "run.yaml:4:25", "at least 0"},
    // Truth
    {"log: {trace: yes}\n", "run.yaml:4:14", "log.trace must be true or false, not \"yes\""},
    {"log: {trace: on}\n", "run.yaml:4:14", "true or false, not \"on\""},
    {"log: {trace: 1}\n", "run.yaml:4:14", "true or false, not \"1\""},
    {"log: {trace: \"true\"}\n", "run.yaml:4:14", "true or false, not the text \"true\" in quotes"},
    {"train: {deterministic: yes}\n", "run.yaml:4:24", "one of false, true, grid"},
    // Choices
    {"device: gpu\n", "run.yaml:4:9", "one of auto, cuda, cpu, not \"gpu\"; did you mean cpu?"},
    {"precision: float32\n", "run.yaml:4:12", "one of auto, fp32, bf16, fp16, fp8"},
    {"parallel: {schedule: 1F1B}\n", "run.yaml:4:22", "not \"1F1B\""},
    // Text
    {"!output: 2024\n", "run.yaml:1:9", "output must be a path, not \"2024\"; put it in quotes"},
    {"!output: true\n", "run.yaml:1:9", "output must be a path"},
    {"!output: null\n", "run.yaml:1:1", "output must be a path, not nothing"},
    {"!output: \"\"\n", "run.yaml:1:9", "output is empty"},
    {"!output: [a]\n", "run.yaml:1:9", "output must be a path, not a list"},
    {"!data: {train: []}\n", "run.yaml:1:15", "data.train is an empty list"},
    {"!data: {train: [b, [a]]}\n", "run.yaml:1:15", "entry 2 of data.train must be text, not a list"},
    {"!data: {train: {a: b}}\n", "run.yaml:1:15", "a list of files or patterns, not a map"},
    {"!data: {train: [*.jsonl]}\n", "run.yaml:1:16", "needs quotes"},
    {"!output: ~/runs\n", "run.yaml:1:9", "HOME is not set"},
    // YAML
    {"!output: [a\n", "run.yaml:2:1", "not valid YAML"},
    {"!\toutput: a\n", "run.yaml:1:", "not valid YAML"},
    {"!output: a\n  b: c\n", "run.yaml:2:", "not valid YAML"},
    {"!just a word\n", "run.yaml:1:1", "a configuration is a map of keys"},
    {"!- output: a\n", "run.yaml:1:1", "a configuration is a map of keys"},
    {"!a: &x [*x]\n", "run.yaml:1:", "are not accepted"},
    {"!output: &x a\nmodel: *x\n", "run.yaml:1:", "anchors (&x) are not accepted"},
    {"!output: !!str 5\n", "run.yaml:1:", "tags"},
    {"!output: !secret 5\n", "run.yaml:1:", "tags"},
    {"!output: a\n---\noutput: b\n", "run.yaml:2:1", "a second document"},
    {nested(40), "run.yaml:4:", "nested deeper than 16 levels"},
    {"!output: \"a\x01\"\n", "run.yaml:1:11", "control character 0x01"},
    // Required
    {"!", "run.yaml", "output and model.path and data.train are missing"},
    {"!output: a\nmodel: {path: m}\n", "run.yaml", "data.train is missing"},
    {"!output: a\nmodel:\ndata:\n", "run.yaml", "model.path and data.train are missing"},
    // Against each other and the world of 8
    {"parallel: {tensor: 2, pipeline: 2, data: 3}\n", "run.yaml:4:",
     "tensor * pipeline * data = 2 * 2 * 3 = 12, but mpirun started 8 ranks; start 12 ranks, or set "
     "parallel.data to 2"},
    {"parallel: {tensor: 3}\n", "run.yaml:4:20",
     "tensor * pipeline = 3 * 1 = 3 does not divide the world: mpirun started 8 ranks; start 6 ranks"},
    {"parallel: {pipeline: 16}\n", "run.yaml:4:", "start 16 ranks"},
    {"parallel: {tensor: 1000000, pipeline: 1000000, data: 1000000}\n", "run.yaml:4:", "1000000000000000000"},
    {"batch: {micro: 3, global: 64}\n", "run.yaml:4:27: batch.global",
     "global = 64 is not a multiple of micro * data = 3 * 8 = 24; take 48 or 72"},
    {"batch: {global: 3}\n", "run.yaml:4:17", "micro * data = 1 * 8 = 8; take 8"},
    {"evaluation: {every: 10}\n", "run.yaml:4:21", "needs files in data.validation"},
    {"parallel: {virtual_stages: 2}\n", "run.yaml:4:28", "needs parallel.schedule interleaved"},
    {"parallel: {tensor_strips: 2}\n", "run.yaml:4:27", "needs parallel.tensor above 1"},
    {"parallel: {tensor: 2, tensor_strips: 5}\n", "run.yaml:4:38", "at most 4"},
    {"parallel: {schedule: zero_bubble, virtual_stages: 3}\n", "run.yaml:4:51", "set it to 2"},
    {"parallel: {schedule: zero_bubble}\ntrain: {recompute: full}\n", "run.yaml:5:20",
     "needs what would be dropped; set it to none"},
    {"parallel: {schedule: zero_bubble, zero: 2}\n", "run.yaml:4:41", "or parallel.schedule to 1f1b"},
    {"train: {deterministic: grid}\nparallel: {zero: 2}\n", "run.yaml:5:18",
     "8 micro-batches a step on each data rank"},
    {"train: {deterministic: grid}\nbatch: {global: 48}\n", "run.yaml:5:17",
     "makes 6 micro-batches a step on each of 8 data ranks"},
    {"checkpoint: {replicas: 2, storage: shared}\n", "run.yaml:4:24", "needs checkpoint.storage per_node"},
    {"checkpoint: {replicas: 3}\n", "run.yaml:4:24", "a part is kept on 1 or 2 nodes"},
    {"checkpoint: {replicas: 2, keep: 1}\n", "run.yaml:4:24", "needs checkpoint.keep of at least 2"},
    {"checkpoint: {upload: ftp://a}\n", "run.yaml:4:22", "must start with s3://"},
    {"checkpoint: {upload: s3://b/../p}\n", "run.yaml:4:22", "only dots"},
    {"checkpoint: {upload: s3://b/p q}\n", "run.yaml:4:22", "the character ' ' is not taken"},
    {"checkpoint: {upload_bytes_per_s: 1e6}\n", "run.yaml:4:34", "needs checkpoint.upload"},
    {"!output: o\nmodel: {path: s3://}\ndata: {train: t}\n", "run.yaml:2:15", "a bucket is missing"},
    {"!output: o\nmodel: {path: m}\ndata: {train: [s3://b/*/x.jsonl]}\n", "run.yaml:3:15",
     "'*' is not taken"},
    {"!output: s3://b/p\nmodel: {path: m}\ndata: {train: t}\n", "run.yaml:1:9", "writes to a disk"},
};

TEST(ConfigErrors, EachWrongFileIsRefusedWithItsPlaceAndTheFix) {
  for (const Wrong& row : wrong_files) {
    const bool is_whole = row.text.starts_with("!");
    const std::string text = is_whole ? row.text.substr(1) : complete + row.text;
    SCOPED_TRACE(text.substr(0, 400));
    const std::string message = message_of(text);
    EXPECT_TRUE(message.starts_with(row.place)) << message;
    EXPECT_NE(message.find(row.message), std::string::npos) << message;
    EXPECT_FALSE(message.empty());
  }
}

TEST(ConfigErrors, ATensorGroupOverTwoHostsIsRefusedUnlessAskedFor) {
  const std::vector<std::string> hosts = {"n1", "n1", "n1", "n1", "n2", "n2", "n2", "n2"};
  const auto message = [&](const std::string& text) -> std::string {
    const LoadedConfig loaded = load_config_text(complete + text, "run.yaml", {});
    try {
      check_config(loaded, {.ranks = 8, .hosts = hosts});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      return error.what();
    }
    return "";
  };
  const std::string refused = message("parallel: {tensor: 8}\n");
  EXPECT_TRUE(refused.starts_with("run.yaml:4:20: parallel.tensor = 8: the group of ranks 0 to 7 spans"))
      << refused;
  EXPECT_EQ(message("parallel: {tensor: 8, allow_tensor_across_nodes: true}\n"), "");
  EXPECT_EQ(message("parallel: {tensor: 4}\n"), "");
  EXPECT_EQ(message("parallel: {tensor: 2, pipeline: 2, data: auto}\n"), "");
}

TEST(ConfigErrors, EveryForeignNameLeadsToAKeyThatIsThere) {
  for (const ForeignKey& foreign : foreign_keys()) {
    if (foreign.ours.empty()) {
      EXPECT_FALSE(foreign.note.empty()) << foreign.name;
    } else {
      EXPECT_NE(find_key(foreign.ours), nullptr) << foreign.name;
    }
    EXPECT_EQ(find_key(foreign.name), nullptr) << foreign.name;
  }
}

TEST(ConfigErrors, TheCompleteFileAloneIsAccepted) {
  EXPECT_EQ(message_of(complete), "");
}

TEST(ConfigErrors, EachWrongOverrideIsRefusedWithItsOption) {
  const struct {
    Override option;
    std::string message;
  } rows[] = {
      {{"batch.micro", "one"}, "--batch.micro: batch.micro must be an integer of at least 1, not \"one\""},
      {{"batch.micro", ""}, "--batch.micro: batch.micro must be an integer"},
      {{"batch.micro", std::nullopt}, "--batch.micro: a value is missing: an integer of at least 1"},
      {{"batch.micr", "1"}, "--batch.micr: unknown key batch.micr; did you mean batch.micro?"},
      {{"micro", "1"}, "--micro: unknown key micro; did you mean batch.micro?"},
      {{"parallel", "{tensor: 2}"},
       "--parallel: parallel is a section; set its keys, for example --parallel.tensor"},
      {{"log.trace", "yes"}, "--log.trace: log.trace must be true or false"},
      {{"optimizer.betas", "[0.9"},
       "--optimizer.betas: a list or a map stands where a key was expected; is a bracket open?"},
      {{"output", ""}, "--output: output must be a path"},
      {{"output", "~/x"}, "--output: output = ~/x: the home directory is not known"},
      {{"data.train", "[]"}, "--data.train: data.train is an empty list"},
      {{"parallel.tensor", "3"}, "--parallel.tensor: tensor * pipeline = 3 * 1 = 3 does not divide"},
      {{"train.seed", "1 2"}, "--train.seed: train.seed must be an integer"},
  };
  for (const auto& row : rows) {
    const std::string message = message_of(complete, {row.option});
    EXPECT_TRUE(message.starts_with(row.message)) << row.option.key << "\n" << message;
  }
}

TEST(ConfigErrors, HostileTextEndsSoonAndInAMessage) {
  const std::string hostile[] = {
      std::string(900'000, '['),
      std::string(900'000, '{'),
      std::string(300'000, '-') + " a",
      std::string(900'000, '\n'),
      "output: \"" + std::string(900'000, 'a'),
      std::string(900'000, '?'),
      std::string("output: a\0b", 11),
      "\xff\xfe\x00\x00",
  };
  for (const std::string& text : hostile) EXPECT_NE(message_of(text), "") << text.substr(0, 20);
  std::string many;
  for (int i = 0; i < 30'000; ++i) many += "- a\n";
  EXPECT_NE(message_of("output:\n" + many).find("more than 20000 values"), std::string::npos);
  many.clear();
  for (int i = 0; i < 30'000; ++i) many += fmt::format("k{}: a\n", i);
  EXPECT_NE(message_of(many).find("more than 1000 keys"), std::string::npos);
}

}  // namespace
}  // namespace ptrain
