// ptrain bench from outside: what the figures must have in common on any machine, and what training makes of
// them.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "src/io/json.h"
#include "tests/support/program.h"

namespace ptrain {
namespace {

const std::string model = fixture("golden/llama-gqa-tied");

ProgramResult bench(std::vector<std::string> words, const std::filesystem::path& cache) {
  words.insert(words.begin(), {PTRAIN_PROGRAM, "bench"});
  return run_program(words, {"XDG_CACHE_HOME=" + cache.string(), "OMP_NUM_THREADS=1"});
}

Json bench_values(std::vector<std::string> words, const std::filesystem::path& cache) {
  words.push_back("--json");
  const ProgramResult result = bench(words, cache);
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
  for (const Json& call : calls) EXPECT_GT(call["best_s"].get<double>(), 0) << call;
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
    const ProgramResult result = bench(row.words, directory.path());
    EXPECT_EQ(result.code, row.code) << result.err;
    EXPECT_NE(result.err.find(row.says), std::string::npos) << result.err;
  }
}

}  // namespace
}  // namespace ptrain
