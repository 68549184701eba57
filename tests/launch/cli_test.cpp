// The command line taken apart: verbs, flags, keys, short names, and what is refused.
#include "launch/cli.h"

#include <gtest/gtest.h>

#include <fstream>

#include "kernels/base/error.h"
#include "launch/secrets.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

int run_nothing(const Arguments&) {
  return 0;
}

const std::vector<Verb>& sample_verbs() {
  static const std::vector<Verb> table = {
      {.name = "train", .summary = "trains", .usage = "CONFIG", .takes = Takes::file, .run = run_nothing},
      {.name = "plan",
       .summary = "plans",
       .usage = "CONFIG --ranks N",
       .takes = Takes::file,
       .flags = {{"ranks", "N", "how many ranks"}, {"no-data", "", "leaves the data out"}},
       .details = "A last line.",
       .run = run_nothing},
      {.name = "eval",
       .summary = "evaluates",
       .usage = "--model DIR --data FILE",
       .takes = Takes::keys,
       .flags = {{"logits", "FILE", "writes logits"}},
       .run = run_nothing},
      {.name = "inspect",
       .summary = "looks",
       .usage = "PATH",
       .min_words = 1,
       .max_words = 1,
       .run = run_nothing},
  };
  return table;
}

const Verb& verb_named(std::string_view name) {
  for (const Verb& verb : sample_verbs()) {
    if (verb.name == name) return verb;
  }
  fail(ExitCode::defect, "no verb {}", name);
}

Arguments parsed(std::string_view verb, const std::vector<std::string>& words) {
  return parse_arguments(verb_named(verb), words, {{"HOME", "/home/u"}});
}

std::string message_of(std::string_view verb, const std::vector<std::string>& words) {
  try {
    parsed(verb, words);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    return error.what();
  }
  return "";
}

/// "batch.micro=2 log.trace" of what was read as keys.
std::string keys_of(const Arguments& arguments) {
  std::string text;
  for (const Override& option : arguments.overrides) {
    if (!text.empty()) text += ' ';
    text += option.key;
    if (option.value) text += '=' + *option.value;
  }
  return text;
}

TEST(CommandLine, KeysAreReadInAllTheirSpellings) {
  const struct {
    std::vector<std::string> words;
    std::string keys;
  } rows[] = {
      {{"a.yaml", "--batch.micro", "2"}, "batch.micro=2"},
      {{"--batch.micro", "2", "a.yaml"}, "batch.micro=2"},
      {{"--batch.micro=2", "a.yaml"}, "batch.micro=2"},
      {{"a.yaml", "--optimizer.learning-rate=1e-5"}, "optimizer.learning_rate=1e-5"},
      {{"a.yaml", "--log.trace"}, "log.trace"},
      {{"a.yaml", "--log.trace", "--batch.micro", "2"}, "log.trace batch.micro=2"},
      {{"a.yaml", "--batch.micro", "-1"}, "batch.micro=-1"},
      {{"a.yaml", "--device", "cpu", "--device=cuda"}, "device=cpu device=cuda"},
      {{"a.yaml", "--output="}, "output="},
      {{"a.yaml", "--output", "a=b"}, "output=a=b"},
      {{"a.yaml", "--data.train", "[a, b]"}, "data.train=[a, b]"},
      {{"--config", "a.yaml", "--batch.micro", "2"}, "batch.micro=2"},
      {{"--config=a.yaml"}, ""},
  };
  for (const auto& row : rows) {
    const Arguments arguments = parsed("train", row.words);
    EXPECT_EQ(keys_of(arguments), row.keys);
    EXPECT_EQ(arguments.config_file, "a.yaml");
    EXPECT_TRUE(arguments.words.empty());
  }
}

TEST(CommandLine, ShortNamesStandForTheirKeysAndAreNamedInMessages) {
  const Arguments arguments = parsed("eval", {"--model", "m", "--data=d.jsonl", "--seed", "3"});
  EXPECT_EQ(keys_of(arguments), "model.path=m data.train=d.jsonl train.seed=3");
  EXPECT_EQ(arguments.overrides[0].option, "--model");
  const LoadedConfig loaded = load_config(arguments, {"model.path", "data.train"});
  EXPECT_EQ(loaded.config.model.path, "m");
  EXPECT_EQ(loaded.config.data.train, (std::vector<std::string>{"d.jsonl"}));
  EXPECT_EQ(loaded.config.train.seed, 3);
  try {
    load_config(parsed("eval", {"--seed", "x"}), {});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("--seed: train.seed must be an integer"))
        << error.what();
  }
}

TEST(CommandLine, AVerbsOwnFlagsWinOverKeysAndTheLaterWins) {
  const Arguments arguments = parsed("plan", {"--ranks", "8", "a.yaml", "--no_data", "--ranks=16"});
  EXPECT_EQ(arguments.integer("ranks", 1), 16);
  EXPECT_TRUE(arguments.has("no-data"));
  EXPECT_FALSE(arguments.has("hardware"));
  EXPECT_EQ(arguments.integer("hardware", 7), 7);
  EXPECT_EQ(arguments.value("hardware", "x"), "x");
  EXPECT_THROW(arguments.required("hardware"), Error);
  EXPECT_THROW(arguments.integer("ranks", 1, 17), Error);
  EXPECT_THROW(parsed("plan", {"a.yaml", "--ranks", "8x"}).integer("ranks", 1), Error);
  EXPECT_EQ(parsed("plan", {"a.yaml", "--ranks", "0.5"}).number("ranks", 1), 0.5);
}

TEST(CommandLine, EverythingBehindTwoDashesIsAWord) {
  EXPECT_EQ(parsed("inspect", {"--", "--odd-name"}).words, (std::vector<std::string>{"--odd-name"}));
  EXPECT_EQ(parsed("inspect", {"-"}).words, (std::vector<std::string>{"-"}));
}

TEST(CommandLine, WrongLinesAreRefusedWithTheFix) {
  const struct {
    std::string_view verb;
    std::vector<std::string> words;
    std::string message;
  } rows[] = {
      {"train", {}, "the configuration file is missing: ptrain CONFIG"},
      {"train", {"--batch.micro", "a.yaml"}, "the configuration file is missing"},
      {"train", {"a.yaml", "b.yaml"}, "unexpected \"b.yaml\"; the usage is ptrain CONFIG"},
      {"train", {"a.yaml", "--config", "b.yaml"}, "unexpected \"a.yaml\""},
      {"train", {"a.yaml", "--config"}, "--config needs FILE behind it"},
      {"train", {"a.yaml", "--confg", "x"}, "unknown option --confg; did you mean --config?"},
      {"train", {"a.yaml", "--micro", "2"}, "unknown option --micro; did you mean --batch.micro?"},
      {"train", {"a.yaml", "-x"}, "unknown option -x; options start with two dashes"},
      {"plan", {"a.yaml", "--rank", "4"}, "unknown option --rank; did you mean --ranks?"},
      {"plan", {"a.yaml", "--ranks"}, "--ranks needs N behind it"},
      {"plan", {"a.yaml", "--ranks", "--no-data"}, "write --ranks=--no-data if that is meant"},
      {"plan", {"a.yaml", "--no-data=1"}, "--no-data takes no value, but \"1\" was given"},
      {"eval", {"a.yaml"}, "unexpected \"a.yaml\"; the usage is ptrain eval --model DIR --data FILE"},
      {"eval", {"--model"}, "--model needs a value behind it"},
      {"inspect", {}, "something is missing: ptrain inspect PATH"},
      {"inspect", {"a", "b"}, "unexpected \"b\""},
      {"inspect", {"a", "--batch.micro", "2"}, "unknown option --batch.micro"},
  };
  for (const auto& row : rows) {
    const std::string message = message_of(row.verb, row.words);
    EXPECT_NE(message.find(row.message), std::string::npos) << message << "\nexpected: " << row.message;
    EXPECT_FALSE(message.empty());
  }
}

TEST(CommandLine, TheFirstWordIsAVerbOrAConfiguration) {
  using Kind = Request::Kind;
  const TemporaryDirectory directory;
  const std::string plain_file = directory.path() / "run";
  std::ofstream(plain_file) << "output: x\n";
  const struct {
    std::vector<std::string> words;
    Kind kind;
    std::string_view verb;
    size_t rest;
  } rows[] = {
      {{}, Kind::help, "", 0},
      {{"--help"}, Kind::help, "", 0},
      {{"-h", "x"}, Kind::help, "", 0},
      {{"--version"}, Kind::version, "", 0},
      {{"plan", "a.yaml"}, Kind::verb, "plan", 1},
      {{"plan", "a.yaml", "--help"}, Kind::verb_help, "plan", 0},
      {{"plan", "-h"}, Kind::verb_help, "plan", 0},
      {{"inspect", "--", "--help"}, Kind::verb, "inspect", 2},
      {{"missing.yaml"}, Kind::verb, "train", 1},
      {{plain_file, "--batch.micro", "2"}, Kind::verb, "train", 3},
      {{"--config", "a.yaml"}, Kind::verb, "train", 2},
      {{"train", "a.yaml"}, Kind::verb, "train", 1},
      {{"a.yaml", "--help"}, Kind::verb_help, "train", 0},
  };
  for (const auto& row : rows) {
    const Request request = find_request(sample_verbs(), row.words);
    EXPECT_EQ(request.kind, row.kind);
    EXPECT_EQ(request.verb ? request.verb->name : "", row.verb);
    EXPECT_EQ(request.words.size(), row.rest);
  }
}

TEST(CommandLine, WhatIsNeitherVerbNorFileGetsASuggestion) {
  try {
    const std::vector<std::string> words = {"pln", "a.yaml"};
    find_request(sample_verbs(), words);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("\"pln\" is neither a verb nor a file; did you mean plan?"),
              std::string::npos)
        << error.what();
  }
}

TEST(CommandLine, HelpNamesEveryVerbFlagAndShortName) {
  const std::string all = help_text(sample_verbs());
  for (const Verb& verb : sample_verbs()) EXPECT_NE(all.find(verb.summary), std::string::npos);
  const std::string plan = help_text(verb_named("plan"));
  for (const char* part : {"ptrain plan CONFIG --ranks N", "--ranks N", "how many ranks", "--no-data",
                           "--config FILE", "A last line."}) {
    EXPECT_NE(plan.find(part), std::string::npos) << part << "\n" << plan;
  }
  EXPECT_NE(help_text(verb_named("eval")).find("--model DIR"), std::string::npos);
  EXPECT_NE(help_text(verb_named("train")).find("  ptrain CONFIG\n"), std::string::npos);
}

TEST(CommandLine, HomeStandsForATilde) {
  const LoadedConfig loaded = load_config(parsed("eval", {"--model", "~/m"}), {});
  EXPECT_EQ(loaded.config.model.path, "/home/u/m");
}

TEST(Cli, KeysAndTokensOfTheEnvironmentAreSecrets) {
  for (const char* name : {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN",
                           "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "DB_PASSWORD"})
    EXPECT_TRUE(is_secret(name)) << name;
  for (const char* name :
       {"AWS_REGION", "PATH", "TOKENIZERS_PARALLELISM", "KEYBOARD", "AWS_ENDPOINT_URL", ""})
    EXPECT_FALSE(is_secret(name)) << name;
  EXPECT_EQ(secrets_of({{"HF_TOKEN", "hf_1"}, {"HOME", "/root"}}), std::vector<std::string>{"hf_1"});
}

}  // namespace
}  // namespace ptrain
