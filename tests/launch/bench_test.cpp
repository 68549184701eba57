// ptrain bench from outside: what the figures must have in common on any machine, and what training makes of
// them.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "launch/bench/bandwidth.h"
#include "src/io/json.h"
#include "tests/support/program.h"

namespace ptrain {
namespace {

const std::string model = fixture("golden/llama-gqa-tied");

ProgramResult run_bench(std::vector<std::string> words, const std::filesystem::path& cache) {
  words.insert(words.begin(), {PTRAIN_PROGRAM, "bench"});
  return run_program(words, {"XDG_CACHE_HOME=" + cache.string(), "OMP_NUM_THREADS=1"});
}

Json bench_values(std::vector<std::string> words, const std::filesystem::path& cache) {
  words.push_back("--json");
  const ProgramResult result = run_bench(words, cache);
  EXPECT_EQ(result.code, 0) << result.err;
  return parse_json(result.out, words[0]);
}

/// What training of two steps writes as mfu.
Json mfu_of_a_run(const std::filesystem::path& directory, const std::filesystem::path& cache) {
  std::ofstream(directory / "rows.jsonl") << R"({"input_ids": [3, 4, 5, 6, 7, 8]})"
                                          << "\n";
  const std::filesystem::path config = directory / "run.yaml";
  std::ofstream(config) << fmt::format(
      "output: {0}/run\nmodel: {{path: {1}}}\ndata: {{train: [{0}/rows.jsonl], sequence_length: 8}}\n"
      "batch: {{global: 1}}\ntrain: {{steps: 1}}\n",
      directory.string(), model);
  std::filesystem::remove_all(directory / "run");
  const ProgramResult result =
      run_program({PTRAIN_PROGRAM, config}, {"XDG_CACHE_HOME=" + cache.string(), "OMP_NUM_THREADS=1"});
  EXPECT_EQ(result.code, 0) << result.err;
  std::ifstream rows(directory / "run" / "metrics.jsonl");
  std::string line;
  std::getline(rows, line);
  return parse_json(line, "metrics.jsonl").value("mfu", Json("missing"));
}

TEST(Bench, GemmLeavesThePeakThatTrainingReadsForMfu) {
  const TemporaryDirectory directory;
  const std::filesystem::path cache = directory.path() / "cache";
  EXPECT_TRUE(mfu_of_a_run(directory.path(), cache).is_null());
  const Json values =
      bench_values({"gemm", "--model", model, "--batch", "1", "--sequence-length", "16"}, cache);
  EXPECT_EQ(values["threads"], 1);
  EXPECT_EQ(values["shapes"].size(), 5u);
  EXPECT_GE(values["sgemm_flops"].get<double>(), values["square_flops"].get<double>());
  EXPECT_EQ(values["peak_flops"], values["sgemm_flops"]);
  const Json peaks = read_json(cache / "ptrain" / "peak.json")["peaks"];
  ASSERT_EQ(peaks.size(), 1u);
  EXPECT_EQ(peaks[0]["sgemm_flops"], values["sgemm_flops"]);
  const Json mfu = mfu_of_a_run(directory.path(), cache);
  ASSERT_TRUE(mfu.is_number()) << mfu;
  EXPECT_GT(mfu.get<double>(), 0);
  EXPECT_LT(mfu.get<double>(), 1);
}

TEST(Bench, MoreThreadsThanCoresLeaveNoPeak) {
  const TemporaryDirectory directory;
  const int threads = static_cast<int>(std::thread::hardware_concurrency()) + 1;
  const ProgramResult result = run_program(
      {PTRAIN_PROGRAM, "bench", "gemm", "--model", model, "--batch", "1", "--sequence-length", "8"},
      {"XDG_CACHE_HOME=" + directory.path().string(), fmt::format("OMP_NUM_THREADS={}", threads)});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("not kept"), std::string::npos) << result.err;
  EXPECT_FALSE(std::filesystem::exists(directory.path() / "ptrain"));
}

TEST(Bench, TwoRanksMeasureTogetherAndTheFirstSpeaks) {
  const TemporaryDirectory directory;
  const std::vector<std::string> mpirun = {PTRAIN_MPIRUN, "--oversubscribe", "--bind-to", "none", "-np",
                                           "2",           PTRAIN_PROGRAM,    "bench"};
  const auto values = [&](std::vector<std::string> words) {
    words.insert(words.begin(), mpirun.begin(), mpirun.end());
    words.push_back("--json");
    const ProgramResult result =
        run_program(words, {"XDG_CACHE_HOME=" + directory.path().string(), "OMP_NUM_THREADS=1",
                            "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"});
    EXPECT_EQ(result.code, 0) << result.err;
    return parse_json(result.out, words.back());  // one object: the second rank is silent
  };
  const Json calls = values({"collectives"})["calls"];
  EXPECT_EQ(calls.size(), 12u);
  for (const Json& call : calls) {
    const double median_s = call["median_s"].get<double>(), bytes = call["bytes"].get<double>();
    EXPECT_GE(median_s, call["best_s"].get<double>()) << call;
    EXPECT_GT(call["best_s"].get<double>(), 0) << call;
    EXPECT_EQ(call["memory"], "host");
    EXPECT_EQ(bytes, 4 * call["count"].get<double>()) << call;
    EXPECT_DOUBLE_EQ(call["algorithm_bytes_per_s"].get<double>(), bytes / median_s);
    const double factor = call["name"] == "all-reduce" ? 1 : 0.5;  // of two ranks
    EXPECT_DOUBLE_EQ(call["bus_bytes_per_s"].get<double>(), factor * bytes / median_s);
  }
  const Json step =
      values({"step", "--model", model, "--batch", "1", "--sequence-length", "9", "--steps", "1"});
  EXPECT_EQ(step["ranks"], 2);
  EXPECT_EQ(step["rows"], 2);  // one on each data rank
  EXPECT_GT(step["memory_bytes_of_all_ranks"].get<double>(), step["peak_memory_bytes"].get<double>());
}

TEST(Bench, StepRunsTrainingSteps) {
  const TemporaryDirectory directory;
  const Json values =
      bench_values({"step", "--model", model, "--batch", "2", "--sequence-length", "17", "--steps", "2"},
                   directory.path());
  EXPECT_EQ(values["rows"], 2);
  EXPECT_GT(values["first_loss"].get<double>(), 0);
  EXPECT_GE(values["median_s"].get<double>(), values["best_s"].get<double>());
  EXPECT_NEAR(values["tokens_per_s"].get<double>() * values["median_s"].get<double>(), 2 * 17, 1e-6);
  EXPECT_GT(values["peak_memory_bytes"].get<double>(), 1e6);
  EXPECT_GT(values["start_s"].get<double>(), 0);
  EXPECT_LT(values["start_s"].get<double>(), 60);
}

TEST(Bench, StepAndDecodeTakeConfigJsonAloneAndAPrecision) {
  const TemporaryDirectory directory;
  std::filesystem::copy(model + "/config.json", directory.path());
  const std::vector<std::string> common = {"--model", directory.path(), "--model.init", "random",
                                           "--precision"};
  const auto values = [&](std::vector<std::string> words, const std::string& precision) {
    words.insert(words.end(), common.begin(), common.end());
    words.push_back(precision);
    return bench_values(words, directory.path());
  };
  const auto step = [&](const std::string& precision) {
    return values({"step", "--batch", "1", "--sequence-length", "11", "--steps", "1"}, precision);
  };
  const Json narrow = step("bf16"), wide = step("fp32");
  EXPECT_EQ(narrow["precision"], "bf16");
  EXPECT_NEAR(narrow["first_loss"].get<double>() / wide["first_loss"].get<double>(), 1, 0.01);
  EXPECT_GT(wide["ledger_bytes"].get<double>(), 0);
  const auto token_bytes = [&](const std::string& precision) {
    return values({"decode", "--prompt-length", "5", "--tokens", "2"}, precision)["bytes_of_token"]
        .get<double>();
  };
  EXPECT_EQ(2 * token_bytes("bf16"), token_bytes("fp32"));
}

TEST(Bench, OpsSayWhatTheyMoveAndTheirDtype) {
  const TemporaryDirectory directory;
  const auto values = [&](const std::string& precision) {
    return bench_values(
        {"ops", "--model", model, "--batch", "1", "--sequence-length", "7", "--precision", precision},
        directory.path());
  };
  const Json wide = values("fp32"), narrow = values("bf16"), tiny = values("fp8");
  EXPECT_EQ(wide["ops"].size(), 16u);
  EXPECT_EQ(tiny["ops"].size(), 19u);  // with what makes 8 bits
  ASSERT_EQ(narrow["ops"].size(), wide["ops"].size());
  double sum_s = 0;
  for (size_t i = 0; i < wide["ops"].size(); ++i) {
    const Json &op = wide["ops"][i], &half = narrow["ops"][i];
    EXPECT_EQ(op["name"], half["name"]);
    EXPECT_EQ(op["dtype"], "f32");
    EXPECT_EQ(half["dtype"], "bf16");
    EXPECT_GT(op["bytes"].get<double>(), 0) << op;
    EXPECT_LE(half["bytes"].get<double>(), op["bytes"].get<double>()) << half;
    sum_s += op["seconds"].get<double>() * op["calls"].get<double>();
  }
  EXPECT_NEAR(wide["step_s"].get<double>(), sum_s, 1e-9);
}

TEST(Bench, AGpuThatIsNotThereIsRefused) {
  const TemporaryDirectory directory;
  const ProgramResult version = run_program({PTRAIN_PROGRAM, "--version"});
  const bool is_built_in = version.out.find("\ncuda none\n") == std::string::npos;
  if (is_built_in && version.out.find("(no driver here)") == std::string::npos)
    GTEST_SKIP() << "this machine has a GPU's driver";
  for (const char* name : {"gemm", "ops", "step", "decode", "collectives"}) {
    const ProgramResult result = run_bench({name, "--model", model, "--device", "cuda"}, directory.path());
    EXPECT_EQ(result.code, is_built_in ? 4 : 2) << name << result.err;
    EXPECT_EQ(result.out, "") << name;
    EXPECT_NE(result.err.find("device: cuda"), std::string::npos) << name << result.err;
  }
}

TEST(Bench, BusBandwidthDoesNotDependOnTheNumberOfRanks) {
  using bench::bus_factor;
  const struct {
    CommKind kind;
    int ranks;
    double factor;
  } rows[] = {
      {CommKind::all_reduce, 2, 1},
      {CommKind::all_reduce, 3, 4.0 / 3},
      {CommKind::all_reduce, 8, 1.75},
      {CommKind::all_gather, 2, 0.5},
      {CommKind::all_gather, 8, 0.875},
      {CommKind::reduce_scatter, 2, 0.5},
      {CommKind::reduce_scatter, 6, 5.0 / 6},
      {CommKind::all_to_all, 4, 0.75},
      {CommKind::broadcast, 2, 1},
      {CommKind::broadcast, 7, 1},
      {CommKind::point_to_point, 2, 1},
      {CommKind::all_reduce, 1, 0},
  };
  for (const auto& row : rows)
    EXPECT_DOUBLE_EQ(bus_factor(row.kind, row.ranks), row.factor) << static_cast<int>(row.kind) << row.ranks;
  // Rings of any size over links of 10 GB/s: each rank sends its part of the bytes to its neighbour.
  for (int ranks : {2, 5, 64}) {
    const int64_t bytes = 640'000'000;
    const double sent = 2.0 * bytes * (ranks - 1) / ranks;
    EXPECT_NEAR(bench::bus_bandwidth(CommKind::all_reduce, ranks, bytes, sent / 10e9), 10e9, 1) << ranks;
  }
}

TEST(Bench, DecodeReadsEveryMatrixForAToken) {
  const TemporaryDirectory directory;
  const Json values =
      bench_values({"decode", "--model", model, "--prompt-length", "9", "--tokens", "3"}, directory.path());
  EXPECT_GT(values["bytes_of_token"].get<double>(), 0);
  EXPECT_GT(values["prefill_tokens_per_s"].get<double>(), 0);
  EXPECT_GE(values["token_median_s"].get<double>(), values["token_best_s"].get<double>());
}

TEST(Bench, DiskLeavesNoFileBehind) {
  const TemporaryDirectory directory;
  const std::filesystem::path there = directory.path() / "there";
  std::filesystem::create_directory(there);
  const Json values = bench_values({"disk", there, "--mebibytes", "8"}, directory.path());
  EXPECT_EQ(values["bytes"], 8 << 20);
  for (const char* key : {"plain_s", "write_s", "sync_s", "of_plain", "read_s", "read_again_s",
                          "small_sync_s", "small_sync_worst_s"})
    EXPECT_GT(values[key].get<double>(), 0) << key;
  EXPECT_LE(values["small_sync_s"].get<double>(), values["small_sync_worst_s"].get<double>());
  EXPECT_EQ(bench_values({"disk", "--dir", there, "--mebibytes", "4"}, directory.path())["bytes"], 4 << 20);
  EXPECT_TRUE(std::filesystem::is_empty(there));
}

TEST(Bench, WrongLinesSayWhatIsPossible) {
  const TemporaryDirectory directory;
  const struct {
    std::vector<std::string> words;
    int code;
    std::string says;
  } rows[] = {
      {{"speed"}, 2, "gemm, ops, step, decode, disk, collectives"},
      {{}, 2, "ptrain bench NAME"},
      {{"step"}, 2, "model.path"},
      {{"gemm", "x"}, 2, "unexpected \"x\""},
      {{"collectives"}, 2, "mpirun -np N"},
      {{"step", "--model", model, "--steps", "0"}, 2, "--steps"},
      {{"decode", "--model", model, "--tokens", "1000000"}, 2, "positions"},
      {{"decode", "--model", directory.path() / "none"}, 3, "none"},
      {{"disk", directory.path() / "none"}, 4, "none"},
  };
  for (const auto& row : rows) {
    const ProgramResult result = run_bench(row.words, directory.path());
    EXPECT_EQ(result.code, row.code) << result.err;
    EXPECT_NE(result.err.find(row.says), std::string::npos) << result.err;
  }
}

}  // namespace
}  // namespace ptrain
