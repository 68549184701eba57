// Right configurations: defaults, overrides, shorthands, writing and reading back, the schema.
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "src/io/json.h"
#include "src/train/config_check.h"
#include "src/train/config_load.h"
#include "src/train/config_plan.h"
#include "src/train/config_write.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

Config with(const std::string& text, std::vector<Override> overrides = {}) {
  LoadRequest request;
  request.overrides = std::move(overrides);
  request.home = "/home/u";
  return load_config_text(text, "run.yaml", request).config;
}

TEST(Config, DefaultsAreThoseOfTheContract) {
  const Config config = with("");
  const struct {
    std::string_view key;
    std::string_view value;
  } rows[] = {
      {"device", "auto"},
      {"precision", "auto"},
      {"model.init", "pretrained"},
      {"model.new_token_init", "normal"},
      {"parallel.tensor", "1"},
      {"parallel.pipeline", "1"},
      {"parallel.data", "auto"},
      {"parallel.schedule", "1f1b"},
      {"parallel.virtual_stages", "1"},
      {"parallel.sequence_parallel", "auto"},
      {"parallel.tensor_strips", "auto"},
      {"parallel.zero", "1"},
      {"parallel.offload", "none"},
      {"parallel.allow_tensor_across_nodes", "false"},
      {"parallel.allow_slow_network", "false"},
      {"parallel.share_devices", "false"},
      {"data.validation", "[]"},
      {"data.sequence_length", "1536"},
      {"data.packing", "true"},
      {"data.overlong", "auto"},
      {"data.shuffle", "true"},
      {"data.mask_prompt", "true"},
      {"data.special_tokens", "null"},
      {"batch.micro", "1"},
      {"batch.global", "64"},
      {"optimizer.learning_rate", "1e-05"},
      {"optimizer.schedule", "cosine"},
      {"optimizer.warmup_steps", "100"},
      {"optimizer.min_ratio", "0.1"},
      {"optimizer.decay_fraction", "0.1"},
      {"optimizer.betas", "[0.9, 0.95]"},
      {"optimizer.epsilon", "1e-08"},
      {"optimizer.weight_decay", "0.1"},
      {"optimizer.clip_grad_norm", "1"},
      {"train.epochs", "1"},
      {"train.steps", "null"},
      {"train.seed", "1"},
      {"train.recompute", "none"},
      {"train.deterministic", "false"},
      {"train.hang_timeout_s", "300"},
      {"train.max_bad_steps", "3"},
      {"train.spike_threshold", "10"},
      {"train.check_replicas_every", "100"},
      {"train.max_fruitless_starts", "3"},
      {"checkpoint.every", "500"},
      {"checkpoint.keep", "2"},
      {"checkpoint.storage", "auto"},
      {"checkpoint.replicas", "1"},
      {"checkpoint.asynchronous", "true"},
      {"checkpoint.dtype", "auto"},
      {"checkpoint.upload", "null"},
      {"checkpoint.upload_bytes_per_s", "0"},
      {"evaluation.every", "0"},
      {"evaluation.keep_best", "true"},
      {"log.every", "1"},
      {"log.level", "info"},
      {"log.tensorboard", "true"},
      {"log.trace", "false"},
  };
  std::set<std::string_view> seen = {"output", "model.path", "data.train"};
  for (const auto& row : rows) {
    EXPECT_EQ(value_text(config, row.key), row.value) << row.key;
    seen.insert(row.key);
  }
  for (const Key& key : config_keys()) EXPECT_TRUE(seen.contains(key.path)) << key.path;
  EXPECT_EQ(seen.size(), config_keys().size());
}

TEST(Config, EveryChoiceReachesItsEnumAndBack) {
  for (const Key& key : config_keys()) {
    for (const std::string_view choice : key.choices) {
      const Config config = with("", {{std::string(key.path), std::string(choice)}});
      EXPECT_EQ(value_text(config, key.path), choice) << key.path;
    }
  }
  EXPECT_EQ(with("parallel: {schedule: zero_bubble}").parallel.schedule, Config::Schedule::zero_bubble);
  EXPECT_EQ(with("data: {overlong: error}").data.overlong, Config::Overlong::error);
  EXPECT_EQ(with("train: {deterministic: grid}").train.deterministic, Config::Deterministic::grid);
  EXPECT_EQ(with("train: {deterministic: True}").train.deterministic, Config::Deterministic::yes);
  EXPECT_EQ(with("optimizer: {schedule: wsd}").optimizer.schedule, Config::LearningRate::wsd);
  EXPECT_EQ(with("checkpoint: {dtype: fp16}").checkpoint.dtype, Config::FileType::fp16);
  EXPECT_EQ(with("log: {level: error}").log.level, Config::LogLevel::error);
  EXPECT_EQ(with("device: cpu").device, Config::Device::cpu);
  EXPECT_EQ(with("precision: fp8").precision, Config::Precision::fp8);
}

TEST(Config, NumbersAreReadInTheWaysPeopleWriteThem) {
  const struct {
    std::string text;
    double value;
  } rows[] = {{"1e-5", 1e-5}, {"1.0e-5", 1e-5}, {"1E-5", 1e-5}, {"+2.5", 2.5},     {".5", 0.5},
              {"3.", 3},      {"0", 0},         {"7", 7},       {"0.00001", 1e-5}, {"1.e+2", 100}};
  for (const auto& row : rows) {
    EXPECT_EQ(with("optimizer: {learning_rate: " + row.text + "}").optimizer.learning_rate, row.value)
        << row.text;
    EXPECT_EQ(with("", {{"optimizer.learning_rate", row.text}}).optimizer.learning_rate, row.value)
        << row.text;
  }
}

TEST(Config, OverridesReadLikeYamlAndTheLaterWins) {
  const Config config =
      with("batch: {micro: 2}\nlog: {tensorboard: true}\n", {{"batch.micro", "3"},
                                                             {"batch.micro", "4"},
                                                             {"optimizer.learning-rate", "1e-4"},
                                                             {"data.train", "*.jsonl"},
                                                             {"data.validation", "[a.jsonl, 'b c.jsonl']"},
                                                             {"output", "2024"},
                                                             {"model.path", "~/models/m"},
                                                             {"data.packing", "False"},
                                                             {"log.trace", std::nullopt},
                                                             {"log.tensorboard", "false"},
                                                             {"optimizer.betas", "[0.8, 0.9]"},
                                                             {"train.steps", "7"},
                                                             {"parallel.data", "auto"},
                                                             {"checkpoint.upload", "s3://bucket/a: b"}});
  EXPECT_EQ(config.batch.micro, 4);
  EXPECT_EQ(config.optimizer.learning_rate, 1e-4);
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"*.jsonl"}));
  EXPECT_EQ(config.data.validation, (std::vector<std::string>{"a.jsonl", "b c.jsonl"}));
  EXPECT_EQ(config.output, "2024");
  EXPECT_EQ(config.model.path, "/home/u/models/m");
  EXPECT_FALSE(config.data.packing);
  EXPECT_TRUE(config.log.trace);
  EXPECT_FALSE(config.log.tensorboard);
  EXPECT_EQ(config.optimizer.betas, (std::array<double, 2>{0.8, 0.9}));
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.parallel.data, std::nullopt);
  EXPECT_EQ(config.checkpoint.upload, "s3://bucket/a: b");
  EXPECT_EQ(with("train: {steps: 5}", {{"train.steps", "null"}}).train.steps, std::nullopt);
}

TEST(Config, AListOfOneMayBeWrittenAsItself) {
  EXPECT_EQ(with("data: {train: a.jsonl}").data.train, (std::vector<std::string>{"a.jsonl"}));
}

TEST(Config, ASectionWithEveryKeyCommentedOutIsEmpty) {
  EXPECT_EQ(with("parallel:\n  # tensor: 2\nbatch:\n").parallel.tensor, 1);
}

TEST(Config, TheResolvedFileReadsBackToTheSameConfiguration) {
  std::string other;  // every key away from its default
  for (const Key& key : config_keys()) {
    Config config;
    const Value value = key.get(config);
    std::string text;
    if (key.kind == Key::Kind::choice) text = key.choices[std::get<int64_t>(value) == 0 ? 1 : 0];
    if (key.kind == Key::Kind::integer) text = key.max < 2 ? "0" : value == Value(int64_t{3}) ? "2" : "3";
    if (key.kind == Key::Kind::number) text = "0.3";
    if (key.kind == Key::Kind::boolean) text = value == Value(true) ? "false" : "true";
    if (key.kind == Key::Kind::text) text = "\"s3://x: \\\"y\\\" é\"";
    if (key.kind == Key::Kind::path) text = "\"some dir/# x: 'y' \\\\ \\t\"";
    if (key.kind == Key::Kind::paths) text = "[\"b*.jsonl\", \"/abs/c.h5\"]";
    if (key.kind == Key::Kind::two_numbers) text = "[0.123456789012345678, 0.5]";
    const Config changed = with("", {{std::string(key.path), text}});
    EXPECT_NE(value_text(changed, key.path), value_text(config, key.path)) << key.path;
    const std::string written = config_yaml(changed, "/base");
    // Empty paths are not accepted again; they are filled in by required keys in a real run.
    const std::string full = config_yaml(
        with("", {{"output", "o"}, {"model.path", "m"}, {"data.train", "t"}, {std::string(key.path), text}}),
        "/base");
    const Config back = with(full);
    EXPECT_EQ(config_yaml(back, "/elsewhere"), full) << key.path;
    if (key.kind != Key::Kind::path && key.kind != Key::Kind::paths) {
      EXPECT_EQ(value_text(back, key.path), value_text(changed, key.path)) << key.path;
    }
  }
}

TEST(Config, ResolvedPathsAreAbsolute) {
  const Config config = with_absolute_paths(
      with(
          "output: runs/x\nmodel: {path: ../m}\ndata: {train: [d/*.jsonl, /a/b.h5], special_tokens: s.json}"),
      "/base/dir");
  EXPECT_EQ(config.output, "/base/dir/runs/x");
  EXPECT_EQ(config.model.path, "/base/m");
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"/base/dir/d/*.jsonl", "/a/b.h5"}));
  EXPECT_EQ(config.data.special_tokens, "/base/dir/s.json");
}

TEST(Config, PlacesInS3StayAsTheyAre) {
  const Config config = with_absolute_paths(
      with("output: o\nmodel: {path: s3://b/m}\ndata: {train: [s3://b/d/*.jsonl, x.jsonl]}"), "/base");
  EXPECT_EQ(config.model.path, "s3://b/m");
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"s3://b/d/*.jsonl", "/base/x.jsonl"}));
}

TEST(Config, TheSchemaDescribesEveryKeyWithItsDefault) {
  const Json schema = config_schema();
  EXPECT_EQ(schema["required"], Json::array({"output", "model", "data"}));
  EXPECT_EQ(schema["additionalProperties"], false);
  for (const Key& key : config_keys()) {
    const size_t dot = key.path.find('.');
    const std::string first(key.path.substr(0, dot));
    const Json* node = &schema["properties"][first];
    if (dot != std::string_view::npos) node = &(*node)["properties"][std::string(key.path.substr(dot + 1))];
    ASSERT_TRUE(node->is_object()) << key.path;
    EXPECT_TRUE(node->contains("description")) << key.path;
    EXPECT_EQ(node->contains("default"), !key.is_required) << key.path;
  }
  const Json& optimizer = schema["properties"]["optimizer"]["properties"];
  EXPECT_EQ(optimizer["learning_rate"]["default"], 1e-5);
  EXPECT_EQ(optimizer["warmup_steps"]["unit"], "steps");
  EXPECT_EQ(optimizer["betas"]["items"]["exclusiveMaximum"], 1);
  const Json& parallel = schema["properties"]["parallel"]["properties"];
  EXPECT_EQ(parallel["data"]["default"], "auto");
  EXPECT_EQ(parallel["zero"]["maximum"], 3);
  EXPECT_EQ(schema["properties"]["train"]["properties"]["deterministic"]["enum"],
            Json::array({false, true, "grid"}));
  EXPECT_TRUE(schema["properties"]["train"]["properties"]["steps"]["default"].is_null());
}

TEST(Config, PlacesNameTheFileOrTheOption) {
  LoadRequest request;
  request.overrides = {{"train.seed", "5"}, {"model.path", "m", "--model"}};
  const LoadedConfig loaded = load_config_text("batch:\n  micro: 2\n", "run.yaml", request);
  EXPECT_EQ(loaded.where("batch.micro"), "run.yaml:2:10: batch.micro");
  EXPECT_EQ(loaded.where("train.seed"), "--train.seed");
  EXPECT_EQ(loaded.where("model.path"), "--model");
  EXPECT_EQ(loaded.where("batch.global"), "run.yaml: batch.global");
}

TEST(Config, AMissingOrEmptyOrHugeFileIsAUsageErrorWithItsName) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "run.yaml";
  LoadRequest request;
  request.file = path;
  EXPECT_THROW(
      {
        try {
          load_config(request);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ExitCode::usage);
          EXPECT_NE(std::string(error.what()).find("run.yaml: no such file"), std::string::npos);
          throw;
        }
      },
      Error);
  std::ofstream(path) << "batch: {micro: 5}\n";
  EXPECT_EQ(load_config(request).config.batch.micro, 5);
  std::ofstream(path) << "#" << std::string(2'000'000, 'x');
  EXPECT_THROW(load_config(request), Error);
}

TEST(ConfigCheck, MeshesThatFillTheWorldAreAccepted) {
  const struct {
    int tensor, pipeline;
    std::string data;
    int ranks, expected;
  } rows[] = {{1, 1, "auto", 1, 1}, {2, 2, "auto", 8, 2}, {2, 2, "2", 8, 2},     {4, 2, "auto", 16, 2},
              {3, 2, "auto", 6, 1}, {1, 1, "auto", 7, 7}, {8, 4, "32", 1024, 32}};
  for (const auto& row : rows) {
    LoadRequest request;
    request.overrides = {{"parallel.tensor", std::to_string(row.tensor)},
                         {"parallel.pipeline", std::to_string(row.pipeline)},
                         {"parallel.data", row.data},
                         {"batch.global", std::to_string(row.expected * 3)}};
    const LoadedConfig loaded = load_config(request);
    EXPECT_NO_THROW(check_config(loaded, {row.ranks, "mpirun started"}));
    EXPECT_EQ(data_ranks(loaded.config, row.ranks), row.expected);
  }
}

TEST(ConfigPlan, EveryAutoIsResolved) {
  const Config config = with(
      "parallel: {tensor: 4, pipeline: 2, schedule: gpipe, zero: 0}\nbatch: {micro: 3, global: 24}\n"
      "data: {sequence_length: 17}");
  const ParallelConfig parallel = parallel_config(config, 16, Config::Precision::bf16);
  EXPECT_EQ(parallel.tensor, 4);
  EXPECT_EQ(parallel.pipeline, 2);
  EXPECT_EQ(parallel.data, 2);
  EXPECT_EQ(parallel.schedule, ScheduleName::gpipe);
  EXPECT_TRUE(parallel.is_sequence_parallel);
  EXPECT_EQ(parallel.zero, 0);
  EXPECT_EQ(parallel.micro, 3);
  EXPECT_EQ(parallel.global, 24);
  EXPECT_EQ(parallel.sequence_length, 17);
  EXPECT_EQ(parallel.types.param, DType::bf16);
  EXPECT_EQ(parallel.types.master, DType::i16);
  EXPECT_FALSE(parallel_config(with(""), 5, Config::Precision::fp32).is_sequence_parallel);
  EXPECT_EQ(parallel_config(with(""), 5, Config::Precision::fp32).data, 5);
  const auto of = [](const char* text) { return parallel_config(with(text), 8, Config::Precision::fp32); };
  EXPECT_EQ(of("parallel: {schedule: zero_bubble}").schedule, ScheduleName::zero_bubble);
  EXPECT_EQ(of("parallel: {schedule: interleaved, virtual_stages: 3}").virtual_stages, 3);
  EXPECT_EQ(of("parallel: {schedule: auto}").schedule, ScheduleName::one_f_one_b);
  EXPECT_EQ(of("parallel: {schedule: auto, virtual_stages: 2}").schedule, ScheduleName::interleaved);
  EXPECT_EQ(of("train: {recompute: selective}").recompute, Recompute::selective);
  EXPECT_EQ(of("train: {recompute: full}").recompute, Recompute::full);
  EXPECT_EQ(of("train: {recompute: auto}").recompute, Recompute::none);
  EXPECT_EQ(of("parallel: {offload: optimizer}").offload, Offload::optimizer);
  EXPECT_TRUE(of("train: {deterministic: grid}").is_grid_invariant);
  EXPECT_FALSE(of("train: {deterministic: true}").is_grid_invariant);
}

TEST(ConfigPlan, OffloadingNeedsAGpu) {
  const ParallelConfig parallel{.offload = Offload::optimizer};
  check_offload(parallel, {.device = DeviceKind::cuda});
  check_offload({}, {.device = DeviceKind::cpu});
  try {
    check_offload(parallel, {.device = DeviceKind::cpu});
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("set it to none"), std::string::npos) << error.what();
  }
}

TEST(ConfigPlan, PrecisionFollowsTheDeviceUnlessItIsSet) {
  EXPECT_EQ(resolved_precision(with(""), Config::Device::cpu), Config::Precision::fp32);
  EXPECT_EQ(resolved_precision(with(""), Config::Device::cuda), Config::Precision::bf16);
  EXPECT_EQ(resolved_precision(with("precision: fp16"), Config::Device::cpu), Config::Precision::fp16);
  EXPECT_EQ(state_types(Config::Precision::fp32).param, DType::f32);
  EXPECT_EQ(state_types(Config::Precision::fp16).grad, DType::f32);
}

}  // namespace
}  // namespace ptrain
