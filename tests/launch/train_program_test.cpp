// Training from outside, from one command to the next: the golden curve on four ranks, what a run writes,
// stopped and gone on with, extended, and its model read by the other verbs.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "src/io/file.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "src/io/safetensors.h"
#include "src/train/config_load.h"
#include "tests/launch/tiny_run.h"
#include "tests/support/golden.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

const std::vector<std::string> four = {"--parallel.tensor", "2", "--parallel.pipeline", "2"};

std::vector<std::string> with(std::vector<std::string> words, const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::vector<Json> lines_of(const std::string& text, const std::string& where) {
  std::vector<Json> rows;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    EXPECT_NE(end, std::string::npos) << where << ": a torn line";
    rows.push_back(parse_json(std::string_view(text).substr(begin, end - begin), where));
    begin = end + 1;
  }
  return rows;
}

std::vector<Json> metrics_of(const TinyRun& run) {
  const auto path = run.output() / "metrics.jsonl";
  return std::filesystem::exists(path) ? lines_of(read_text(path, 1 << 24), "metrics.jsonl")
                                       : std::vector<Json>{};
}

/// What of the metrics does not depend on the clock.
std::vector<std::string> numbers_of(const TinyRun& run) {
  std::vector<std::string> rows;
  for (const Json& row : metrics_of(run)) {
    std::string text;
    for (const char* key :
         {"step", "loss", "grad_norm", "lr", "supervised_tokens", "tokens", "skipped_steps"})
      text += row.at(key).dump() + " ";
    rows.push_back(text);
  }
  return rows;
}

TEST(TrainProgram, TheGoldenCurveOnFourRanksAndEverythingThatARunWrites) {
  const TinyRun run;
  std::filesystem::copy(run.rows(), run.root() / "held-out.jsonl");
  const ProgramResult result =
      ptrain_on(4, with({run.config(), "--train.steps", "20", "--batch.global=6", "--checkpoint.every", "10",
                         "--log.tensorboard", "--data.validation", run.root() / "held-out.jsonl"},
                        four));
  ASSERT_EQ(result.code, 0) << result.err;

  const Json curve = read_json(fixture("golden/llama-gqa-tied/curve.json"))["curve"];
  const std::vector<Json> rows = metrics_of(run);
  ASSERT_EQ(rows.size(), curve.size() + 1);
  const std::set<std::string> keys = {"step",
                                      "loss",
                                      "grad_norm",
                                      "lr",
                                      "supervised_tokens",
                                      "tokens",
                                      "pad_fraction",
                                      "tokens_per_s",
                                      "step_s",
                                      "mfu",
                                      "peak_memory_bytes",
                                      "skipped_steps",
                                      "checkpoint_stall_s",
                                      "exposed_communication",
                                      "time"};
  for (size_t i = 0; i < curve.size(); ++i) {
    std::set<std::string> found;
    for (const auto& [key, value] : rows[i].items()) found.insert(key);
    EXPECT_EQ(found, keys);
    const double loss = curve[i]["loss"].get<double>(), norm = curve[i]["grad_norm"].get<double>();
    EXPECT_EQ(rows[i]["step"], i + 1);
    EXPECT_NEAR(rows[i]["loss"].get<double>(), loss, tolerance::golden_loss * loss) << "step " << i + 1;
    EXPECT_NEAR(rows[i]["grad_norm"].get<double>(), norm, tolerance::golden_grad_norm * norm);
    EXPECT_EQ(rows[i]["supervised_tokens"], curve[i]["supervised_tokens"]);
    EXPECT_EQ(rows[i]["tokens"], 6 * 19);
  }
  EXPECT_EQ(rows.back()["step"], 20);
  EXPECT_GT(rows.back()["eval_loss"].get<double>(), 0);
  EXPECT_EQ(rows.back()["eval_supervised_tokens"], 1657);

  // stdout has a line a step and the evaluation, stderr the rest.
  EXPECT_EQ(times_in("step ", result.out), 21) << result.out;
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 21) << result.out;
  EXPECT_EQ(times_in("step ", result.err), 0) << result.err;
  EXPECT_EQ(times_in("done: the model lies in " + (run.output() / "model").string(), result.err), 1)
      << result.err;

  LoadRequest written;
  written.file = run.output() / "config.yaml";
  written.required = required_keys();
  const Config config = load_config(written).config;
  EXPECT_EQ(config.batch.global, 6);
  EXPECT_EQ(config.parallel.tensor, 2);
  EXPECT_EQ(config.optimizer.learning_rate, 0.003);
  EXPECT_TRUE(config.log.tensorboard) << "a flag alone is true";
  EXPECT_TRUE(std::filesystem::path(config.model.path).is_absolute());

  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(run.output())) {
    const std::string name = entry.path().filename();
    found.insert(name.starts_with("events.out.tfevents.") ? "events" : name);
  }
  found.erase(".lock");
  EXPECT_EQ(found, (std::set<std::string>{"config.yaml", "metrics.jsonl", "events", "checkpoints", "model",
                                          "data", "logs"}));
  for (const char* step : {"step-00000010", "step-00000020"}) {
    EXPECT_TRUE(std::filesystem::exists(run.output() / "checkpoints" / step / "MANIFEST.json"));
    EXPECT_EQ(ptrain_on(1, {"inspect", run.output() / "checkpoints" / step, "--verify"}).code, 0);
  }
  EXPECT_EQ(HfDir::open(run.output() / "model").tensors().size(), HfDir::open(run.model()).tensors().size());
  const ProgramResult inspected = ptrain_on(1, {"inspect", run.output() / "model"});
  EXPECT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_NE(inspected.out.find("model.embed_tokens.weight"), std::string::npos) << inspected.out;

  const ProgramResult evaluated =
      ptrain_on(1, {"eval", "--model", run.output() / "model", "--data", run.rows()});
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  const double loss = parse_json(evaluated.out, "stdout")["loss"].get<double>();
  EXPECT_NEAR(loss, rows.back()["eval_loss"].get<double>(), 1e-6 * loss);
}

/// mpirun under way, to be sent a signal.
class Background {
 public:
  explicit Background(const std::vector<std::string>& words)
      : thread_([this, words] { result_ = ptrain_on(4, words); }) {}
  ~Background() {
    if (thread_.joinable()) thread_.join();
  }
  const ProgramResult& wait() {
    thread_.join();
    return result_;
  }

 private:
  ProgramResult result_;
  std::thread thread_;
};

/// The mpirun whose command line names `text`.
pid_t mpirun_of(const std::string& text) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::stringstream line;
    line << std::ifstream(entry.path() / "cmdline", std::ios::binary).rdbuf();
    if (line.str().starts_with(PTRAIN_MPIRUN) && line.str().find(text) != std::string::npos)
      return std::stoi(entry.path().filename());
  }
  return 0;
}

bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 12'000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return condition();
}

TEST(TrainProgram, StoppedByASignalItGoesOnToTheSameBitsAndCanBeExtended) {
  const TinyRun unbroken, stopped;
  const auto words = [](const TinyRun& run) {
    return with({run.config(), "--train.steps", "150", "--batch.global", "6", "--data.shuffle", "true"},
                four);
  };
  ASSERT_EQ(ptrain_on(4, words(unbroken)).code, 0);

  {
    Background background(words(stopped));
    const auto metrics = stopped.output() / "metrics.jsonl";
    const auto has_begun = [&] {
      return std::filesystem::exists(metrics) && times_in("\n", read_text(metrics, 1 << 24)) >= 3;
    };
    ASSERT_TRUE(wait_for(has_begun));
    // A second run on the same output is refused, naming this one.
    const ProgramResult second = ptrain_on(1, {stopped.config(), "--batch.global", "6"});
    EXPECT_EQ(second.code, 2) << second.err;
    EXPECT_EQ(times_in("belongs to a run that is still going (host ", second.err), 1) << second.err;
    EXPECT_EQ(times_in(", pid ", second.err), 1);
    const pid_t mpirun = mpirun_of(stopped.config());
    ASSERT_GT(mpirun, 0);
    ::kill(mpirun, SIGUSR1);
    const ProgramResult& result = background.wait();
    EXPECT_EQ(result.code, 75) << result.err;
    EXPECT_EQ(times_in("asked to stop: saved ", result.err), 1) << result.err;
  }
  EXPECT_EQ(processes_left(stopped.config()), 0);
  const size_t done = metrics_of(stopped).size();
  EXPECT_LT(done, 150u);
  EXPECT_FALSE(std::filesystem::exists(stopped.output() / "model"));

  const ProgramResult rest = ptrain_on(4, words(stopped));
  EXPECT_EQ(rest.code, 0) << rest.err;
  EXPECT_EQ(times_in(fmt::format("goes on after step {} from ", done), rest.err), 1) << rest.err;
  EXPECT_EQ(times_in("step ", rest.out), static_cast<int>(150 - done));
  EXPECT_EQ(numbers_of(stopped), numbers_of(unbroken));
  const HfDir unbroken_model = HfDir::open(unbroken.output() / "model");
  const HfDir stopped_model = HfDir::open(stopped.output() / "model");
  for (const StoredTensor& tensor : unbroken_model.tensors()) {
    OwnedTensor one(tensor.shape, DType::f32), other(tensor.shape, DType::f32);
    unbroken_model.read_box(tensor.name, whole(tensor.shape), one.view);
    stopped_model.read_box(tensor.name, whole(tensor.shape), other.view);
    EXPECT_TRUE(std::ranges::equal(one.view.span<float>(), other.view.span<float>())) << tensor.name;
  }

  const ProgramResult extended = ptrain_on(4, with(words(stopped), {"--train.steps", "152"}));
  EXPECT_EQ(extended.code, 0) << extended.err;
  EXPECT_EQ(times_in("warning: train.steps changes from 150 to 152 after step 150", extended.err), 1)
      << extended.err;
  EXPECT_EQ(metrics_of(stopped).size(), 152u);
}

TEST(TrainProgram, EvalIsTheSameOnOneRankAndOnFourAndItsLogitsAreTheReferences) {
  const TinyRun run;
  const SafetensorsFile golden = SafetensorsFile::open(fixture("golden/llama-gqa-tied/golden.safetensors"));
  const OwnedTensor ids = golden.read("input_ids"), labels = golden.read("labels"),
                    logits = golden.read("logits");
  const int64_t B = ids.view.shape[0], T = ids.view.shape[1], V = logits.view.shape[2];
  std::string text;
  for (int64_t b = 0; b < B; ++b) {
    const auto row = [&](const OwnedTensor& from) {
      return Json(
          std::vector<int64_t>(from.view.as<int64_t>() + b * T, from.view.as<int64_t>() + (b + 1) * T));
    };
    text += Json{{"input_ids", row(ids)}, {"labels", row(labels)}}.dump() + "\n";
  }
  put(run.rows(), text);
  const std::string out = run.root() / "logits.safetensors";
  const std::vector<std::string> eval = {"eval",     "--model",  run.model(), "--data",
                                         run.rows(), "--logits", out};
  const double want = double{golden.read("loss").view.as<float>()[0]};
  for (int ranks : {1, 4}) {
    const ProgramResult result = ptrain_on(ranks, ranks == 1 ? eval : with(eval, four));
    ASSERT_EQ(result.code, 0) << result.err;
    const Json found = parse_json(result.out, "stdout");
    EXPECT_EQ(std::ranges::count(result.out, '\n'), 1) << "one object and nothing else";
    EXPECT_NEAR(found["loss"].get<double>(), want, tolerance::golden_loss * want);
    EXPECT_NEAR(found["perplexity"].get<double>(), std::exp(found["loss"].get<double>()),
                1e-9 * std::exp(want));
    EXPECT_EQ(found["rows"], B);
    EXPECT_EQ(found["tokens"], B * T);
    const SafetensorsFile file = SafetensorsFile::open(out);
    EXPECT_EQ(file.entries().size(), static_cast<size_t>(B));
    for (int64_t b = 0; b < B; ++b) {
      const OwnedTensor row = file.read(fmt::format("logits.{}", b));
      ASSERT_EQ(row.view.shape, Shape({T, V}));
      EXPECT_LT(relative_to_largest(row.view.span<float>(),
                                    logits.view.span<float>().subspan(static_cast<size_t>(b * T * V),
                                                                      static_cast<size_t>(T * V))),
                tolerance::golden)
          << ranks << " ranks, row " << b;
    }
    std::filesystem::remove(out);
  }
}

TEST(TrainProgram, WhatIsLeftToAutoIsChosenOnceForAllRanksAndSaid) {
  TinyRun run;
  run.configure(
      "batch: {global: 8}\nparallel: {pipeline: 2, schedule: auto}\n"
      "train: {steps: 2, recompute: auto}\ncheckpoint: {every: 0}\n");
  const ProgramResult result = ptrain_on(2, {run.config()});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(times_in("parallel.schedule auto: ", result.err), 1) << result.err;
  EXPECT_EQ(times_in("train.recompute auto: none; ", result.err), 1) << result.err;
  EXPECT_EQ(times_in("step 2/2", result.out), 1) << result.out;
}

TEST(CheckProgram, PrintsWhatWouldRunAndLeavesNothingBehind) {
  const TinyRun run;
  const std::vector<std::string> check = with({"check", run.config(), "--batch.global", "6"}, four);
  const ProgramResult alone = ptrain_on(1, check);
  EXPECT_EQ(alone.code, 0) << alone.err;
  for (const char* text :
       {"valid for 4 ranks", "llama, 94,464 parameters", "38 tensors in 1 file, f32",
        "tensor 2 x pipeline 2 x data 1", "embedding to block",
        "120 documents, 2280 tokens; 1657 tokens supervised; 120 rows", "20, 20 an epoch",
        "begins with step 1",
        "train.jsonl:2: 19 tokens, 14 supervised\n    . 168 111 139 24 77\n    + 37 116 "}) {
    EXPECT_EQ(times_in(text, alone.out), 1) << text << "\n" << alone.out;
  }
  const ProgramResult larger = ptrain_on(1, with(check, {"--ranks", "12", "--no-data"}));
  EXPECT_EQ(larger.code, 0) << larger.err;
  EXPECT_EQ(times_in("tensor 2 x pipeline 2 x data 3", larger.out), 1) << larger.out;
  EXPECT_EQ(times_in("supervised", larger.out), 0) << larger.out;

  for (const char* type : {"auto", "bf16"}) {  // of which the second keeps wider masters
    const ProgramResult step = ptrain_on(4, with(check, {"--one-step", "--checkpoint.dtype", type}));
    EXPECT_EQ(step.code, 0) << step.err;
    const Json first = read_json(fixture("golden/llama-gqa-tied/curve.json"))["curve"][0];
    EXPECT_EQ(times_in(fmt::format("step 1: loss {:.4f}, gradient norm {:.3f}", first["loss"].get<double>(),
                                   first["grad_norm"].get<double>()),
                       step.out),
              1)
        << step.out;
    EXPECT_EQ(times_in("of state are the same; removed", step.out), 1) << step.out;
  }
  for (const auto& entry : std::filesystem::directory_iterator(run.output()))
    EXPECT_EQ(entry.path().filename(), "data") << "only the cache of tokens stays";
  const ProgramResult other = ptrain_on(1, with(check, {"--one-step", "--ranks", "4"}));
  EXPECT_EQ(other.code, 2);
  EXPECT_EQ(times_in("--ranks says 4, but mpirun started 1", other.err), 1) << other.err;
}

TEST(CheckProgram, AcceptsTheShippedConfigurationsOfLargeModelsAsTheyLie) {
  for (const auto& [name, ranks] :
       std::map<std::string, std::string>{{"llama7b", "16"}, {"llama13b", "16"}, {"llama70b", "64"}}) {
    const std::string config = fmt::format("{}/configs/{}.yaml", PTRAIN_SOURCE, name);
    const ProgramResult result = run_program({"sh", "-c",
                                              fmt::format("cd '{}' && '{}' check '{}' --no-data --ranks {}",
                                                          PTRAIN_SOURCE, PTRAIN_PROGRAM, config, ranks)});
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(times_in("none in configs/models/", result.out), 1) << result.out;
    EXPECT_EQ(times_in("valid for " + ranks + " ranks", result.out), 1) << result.out;
  }
}

TEST(HelpProgram, EveryVerbIsListedAndHasAPage) {
  const ProgramResult help = ptrain_on(1, {"--help"});
  ASSERT_EQ(help.code, 0);
  for (const char* verb : {"train", "bench", "check", "verify", "plan", "eval", "generate", "tokenize",
                           "preprocess", "import", "export", "inspect", "config-schema", "help", "version"}) {
    EXPECT_EQ(times_in(fmt::format("\n  {} ", verb), help.out), 1) << verb;
    const ProgramResult page = ptrain_on(1, {verb, "--help"});
    EXPECT_EQ(page.code, 0) << verb;
    EXPECT_EQ(page.err, "");
    EXPECT_EQ(page.out, ptrain_on(1, {"help", verb}).out);
    EXPECT_NE(page.out.find("Usage\n  ptrain"), std::string::npos) << page.out;
  }
}

}  // namespace
}  // namespace ptrain
