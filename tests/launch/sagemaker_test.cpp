// What a run does because SageMaker started it.
#include "launch/sagemaker.h"

#include <gtest/gtest.h>

#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/fixtures.h"

namespace ptrain::sagemaker {
namespace {

const Environment two_hosts = {{"SM_HOSTS", R"(["algo-1","algo-2"])"}, {"SM_CURRENT_HOST", "algo-1"}};

std::string failure_in(const std::filesystem::path& root) {
  return read_text(root / "opt/ml/output/failure", 1 << 20);
}

TEST(SageMaker, TheReasonOfAFailureIsLeftWhereItIsReadAndTheFirstOneStays) {
  const TemporaryDirectory directory;
  note_failure(two_hosts, "batch.global = 3 is wrong", directory.path());
  note_failure(two_hosts, "mpirun ended", directory.path());
  EXPECT_EQ(failure_in(directory.path()), "batch.global = 3 is wrong");
  const std::filesystem::directory_iterator files(directory.path() / "opt/ml/output");
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);  // and nothing else beside it
}

TEST(SageMaker, ALongReasonIsCutBetweenCharacters) {
  const TemporaryDirectory directory;
  std::string reason(1023, 'x');
  reason += "ä and more";  // its two bytes lie around the limit
  note_failure(two_hosts, reason, directory.path());
  EXPECT_EQ(failure_in(directory.path()), std::string(1023, 'x'));
}

TEST(SageMaker, OutsideOfAJobNothingIsWritten) {
  const TemporaryDirectory directory;
  note_failure({{"PATH", "/bin"}}, "reason", directory.path());
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

TEST(SageMaker, TheModelIsWantedWhereTheJobSaysSo) {
  EXPECT_FALSE(wants_model({}));
  EXPECT_FALSE(wants_model({{"PTRAIN_SM_MODEL", ""}}));
  EXPECT_FALSE(wants_model({{"PTRAIN_SM_MODEL", "0"}}));
  EXPECT_TRUE(wants_model({{"PTRAIN_SM_MODEL", "1"}}));
  EXPECT_THROW(wants_model({{"PTRAIN_SM_MODEL", "yes"}}), Error);
}

TEST(SageMaker, AModelIsCopiedAndReplacesOneOfAnEarlierStart) {
  const TemporaryDirectory directory;
  const std::filesystem::path model = directory.path() / "run/model",
                              place = directory.path() / "opt/ml/model";
  std::filesystem::create_directories(model);
  std::filesystem::create_directories(place);
  write_text(model / "config.json", "{}");
  write_text(place / "config.json", "older");
  copy_model(model, directory.path());
  EXPECT_EQ(read_text(place / "config.json", 100), "{}");
  EXPECT_THROW(copy_model(directory.path() / "none", directory.path()), Error);
}

TEST(SageMaker, RanksOnFewerHostsThanWerePaidForAreRefusedWithTheWayOut) {
  const std::vector<std::string> one_host = {"algo-1", "algo-1"};
  const std::string why = objection_to_world(two_hosts, one_host);
  EXPECT_NE(why.find("2 hosts, but its 2 ranks are on 1"), std::string::npos) << why;
  EXPECT_NE(why.find(R"(["-np", "4", "--bind-to", "none"])"), std::string::npos) << why;
  const std::vector<std::string> both = {"algo-1", "algo-1", "algo-2", "algo-2"};
  EXPECT_EQ(objection_to_world(two_hosts, both), "");
  EXPECT_NE(objection_to_world({{"SM_HOSTS", "['algo-1', 'algo-2']"}}, one_host), "");  // of SDK v3
  EXPECT_EQ(objection_to_world({}, one_host), "");
  EXPECT_EQ(objection_to_world({{"SM_HOSTS", "no json"}}, one_host), "");
}

TEST(SageMaker, ThereAreAsManyRanksAsTheSdkAskedForOnEachHost) {
  const std::vector<std::string> four = {"algo-1", "algo-1", "algo-2", "algo-2"};
  const std::vector<std::string> three(four.begin(), four.end() - 1);
  for (const auto& [variable, value] :
       {std::pair{"SM_DISTRIBUTED_CONFIG",
                  R"({"process_count_per_node": 2, "mpi_additional_options": null})"},
        std::pair{"SM_FRAMEWORK_PARAMS", R"({"sagemaker_mpi_num_of_processes_per_host":2})"}}) {
    Environment environment = two_hosts;
    environment[variable] = value;
    EXPECT_EQ(objection_to_world(environment, four), "");
    const std::string why = objection_to_world(environment, three);
    EXPECT_NE(why.find("2 hosts, but 2 ranks were asked for on each, and there are 3 in all"),
              std::string::npos)
        << why;
    EXPECT_NE(why.find(R"(["-np", "4")"), std::string::npos) << why;
    const std::vector<std::string> one = {"algo-1"};
    EXPECT_NE(objection_to_world(environment, one).find(R"(["-np", "4")"), std::string::npos);
  }
  for (const char* unsaid : {"{}", R"({"process_count_per_node": null})", "no json", "[]"}) {
    Environment environment = two_hosts;
    environment["SM_DISTRIBUTED_CONFIG"] = unsaid;
    EXPECT_EQ(objection_to_world(environment, three), "") << unsaid;
  }
}

}  // namespace
}  // namespace ptrain::sagemaker
