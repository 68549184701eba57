// The program from outside: what it prints, where, and with which exit code.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/config_check.h"
#include "src/train/config_load.h"
#include "tests/support/program.h"

namespace ptrain {
namespace {

ProgramResult ptrain_with(std::vector<std::string> words, const std::vector<std::string>& variables = {}) {
  words.insert(words.begin(), PTRAIN_PROGRAM);
  return run_program(words, variables);
}

TEST(Program, VersionNamesTheRevisionAndALineForEachPart) {
  const ProgramResult result = ptrain_with({"--version"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_TRUE(result.out.starts_with("ptrain ")) << result.out;
  for (const char* line : {"\ngit ", "\ncuda ", "\nnccl ", "\ncudnn ", "\nmpi ", "\nblas "}) {
    EXPECT_NE(result.out.find(line), std::string::npos) << line << result.out;
  }
}

TEST(Program, HelpIsOnStdoutAndFast) {
  const ProgramResult result = ptrain_with({"--help"});
  EXPECT_EQ(result.code, 0);
  EXPECT_NE(result.out.find("mpirun -np N ptrain CONFIG"), std::string::npos);
  EXPECT_NE(result.out.find("config-schema"), std::string::npos);
  double best = result.seconds;
  for (int i = 0; i < 10; ++i) best = std::min(best, ptrain_with({"--help"}).seconds);
  EXPECT_LT(best, 0.2);  // the goal is 0.02 on an idle machine
}

TEST(Program, DoctorHasALineForEachPartAndFailsWhereSomethingDoes) {
  const TemporaryDirectory directory;
  const ProgramResult well = ptrain_with({"doctor", "--dir", directory.path().string()});
  for (const char* topic : {"  mpi ", "  cpu ", "  memory ", "  disk ", "  files ", "  name "})
    EXPECT_NE(well.out.find(topic), std::string::npos) << topic << well.out;
  EXPECT_EQ(well.code, well.out.find("fail  ") == std::string::npos ? 0 : 1) << well.out;
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
  const ProgramResult ill = ptrain_with({"doctor", "--dir", "/proc/none"});
  EXPECT_EQ(ill.code, 1);
  EXPECT_NE(ill.out.find("fail  disk      /proc/none cannot be written"), std::string::npos) << ill.out;
}

TEST(Program, WithoutWordsItShowsTheHelpOnStderr) {
  const ProgramResult result = ptrain_with({});
  EXPECT_EQ(result.code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("Usage"), std::string::npos);
}

TEST(Program, TheDocumentsOfKeysAreThoseOfThisProgram) {
  const std::filesystem::path docs = std::filesystem::path(PTRAIN_SOURCE) / "docs";
  EXPECT_EQ(read_text(docs / "configuration.md", 1 << 20), ptrain_with({"config-schema", "--markdown"}).out)
      << "run: ptrain config-schema --markdown > docs/configuration.md";
  EXPECT_TRUE(
      read_text(docs / "moving.md", 1 << 20).ends_with(ptrain_with({"config-schema", "--moving"}).out))
      << "the table of docs/moving.md is what ptrain config-schema --moving prints";
}

TEST(Program, SchemaIsJson) {
  const ProgramResult result = ptrain_with({"config-schema"});
  EXPECT_EQ(result.code, 0);
  const Json schema = parse_json(result.out, "stdout");
  EXPECT_EQ(schema["properties"]["batch"]["properties"]["global"]["default"], 64);
}

TEST(Program, WrongLinesEndWithOneLineOnStderrAndCode2) {
  const std::vector<std::string> lines[] = {
      {"chekc"}, {"config-schema", "x"}, {"config-schema", "--foo"}, {"help", "nothing"}, {"--nope"}};
  for (const auto& words : lines) {
    const ProgramResult result = ptrain_with(words);
    EXPECT_EQ(result.code, 2) << words[0];
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.err.starts_with("ptrain: error: ")) << result.err;
    EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.err;
    EXPECT_LT(result.seconds, 1);
  }
}

TEST(Program, OnlyTheFirstRankSpeaksOfAWrongLine) {
  EXPECT_NE(ptrain_with({"chekc"}, {"OMPI_COMM_WORLD_RANK=0"}).err, "");
  // The launcher ends the others meanwhile. Who is still there has an error of its own host, said there once.
  RunningProgram second({PTRAIN_PROGRAM, "chekc"},
                        {"OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_LOCAL_RANK=1"});
  RunningProgram of_host({PTRAIN_PROGRAM, "chekc"},
                         {"OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_LOCAL_RANK=0"});
  const ProgramResult silent = second.wait(), speaker = of_host.wait();
  EXPECT_EQ(silent.err, "");
  EXPECT_NE(speaker.err.find("\"chekc\" is neither a verb nor a file"), std::string::npos) << speaker.err;
  EXPECT_NE(speaker.err.find("(on host "), std::string::npos) << speaker.err;
  for (const ProgramResult& other : {silent, speaker}) {
    EXPECT_EQ(other.code, 2);
    EXPECT_GT(other.seconds, 1) << "a launcher would end the job before the first rank has spoken";
  }
}

TEST(Program, AFullDiskUnderStdoutIsCode4) {
  const ProgramResult result =
      run_program({"sh", "-c", std::string(PTRAIN_PROGRAM) + " config-schema > /dev/full"});
  EXPECT_EQ(result.code, 4);
  EXPECT_NE(result.err.find("ptrain: error: "), std::string::npos) << result.err;
}

/// The number of ranks that the first comment of a shipped configuration starts.
int ranks_of_comment(const std::string& text) {
  const size_t at = text.find("-np ");
  return at < text.find('\n') ? std::stoi(text.substr(at + 4)) : 0;
}

TEST(Configurations, EachThatIsShippedIsValidForTheRanksOfItsFirstComment) {
  const std::filesystem::path root = PTRAIN_SOURCE;
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root / "configs")) {
    if (entry.path().extension() != ".yaml") continue;
    ++count;
    const std::string text = read_text(entry.path(), 1 << 20);
    const int ranks = ranks_of_comment(text);
    EXPECT_TRUE(text.starts_with("# mpirun -np ")) << entry.path();
    EXPECT_NE(
        text.substr(0, text.find('\n')).find("build/ptrain configs/" + entry.path().filename().string()),
        std::string::npos);
    ASSERT_GE(ranks, 1) << entry.path();
    LoadRequest request;
    request.file = entry.path();
    request.required = required_keys();
    const LoadedConfig loaded = load_config(request);
    EXPECT_NO_THROW(check_config(loaded, {ranks, "mpirun started"})) << entry.path();
    const Json model = read_json(root / loaded.config.model.path / "config.json");
    EXPECT_LE(loaded.config.data.sequence_length, model["max_position_embeddings"].get<int64_t>());
    EXPECT_EQ(model["num_attention_heads"].get<int>() % loaded.config.parallel.tensor, 0) << entry.path();
  }
  EXPECT_EQ(count, 5);
}

}  // namespace
}  // namespace ptrain
