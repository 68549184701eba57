// ptrain verify from outside: its table, its exit codes, and that it leaves nothing behind.
#include <gtest/gtest.h>

#include <algorithm>

#include "src/io/json.h"
#include "tests/launch/tiny_run.h"

namespace ptrain {
namespace {

TEST(VerifyProgram, PrintsATableOfPlansThatAgreeAndWritesNothing) {
  const TinyRun run;
  const ProgramResult result = ptrain_on(2, {"verify", run.config(), "--batch.global", "6"});
  ASSERT_EQ(result.code, 0) << result.err;
  for (const char* name : {"the configuration's own plan", "the same again", "tensor 1 x pipeline 2 x data 1",
                           "tensor 2 x pipeline 1 x data 1", "parallel.zero = 3", "train.recompute = full",
                           "parallel.schedule = zero_bubble (H1)"}) {
    EXPECT_EQ(times_in(fmt::format("\n{} ", name), result.out), 1) << name << "\n" << result.out;
  }
  // The loss of the first step is the reference's, in every plan: no sum differs in six digits.
  const Json curve = read_json(fixture("golden/llama-gqa-tied/curve.json"))["curve"];
  const std::string loss = fmt::format("     1  {:.6g}", curve[0]["loss"].get<double>());
  EXPECT_EQ(times_in(loss, result.out), 9) << loss << "\n" << result.out;
  EXPECT_EQ(times_in("DIFFERS", result.out), 0) << result.out;
  EXPECT_TRUE(result.out.ends_with("\nall 8 variants agree with the configuration's own plan\n"))
      << result.out;
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 3 + 2 * 9 + 1) << result.out;
  EXPECT_FALSE(std::filesystem::exists(run.output()));
}

TEST(VerifyProgram, IsRefusedWhatARunIsRefused) {
  const TinyRun run;
  const ProgramResult mesh = ptrain_on(2, {"verify", run.config(), "--parallel.tensor", "3"});
  EXPECT_EQ(mesh.code, 2);
  EXPECT_EQ(times_in("does not divide the world: mpirun started 2 ranks", mesh.err), 1) << mesh.err;
  put(run.rows(), R"({"input_ids": [1, 2, 3], "labels": [-100, -100, -100]})"
                  "\n");
  const ProgramResult rows = ptrain_on(2, {"verify", run.config(), "--batch.global", "6"});
  EXPECT_EQ(rows.code, 3) << rows.err;
  EXPECT_EQ(times_in("no token is supervised, so there is nothing to compare", rows.err), 1) << rows.err;
  put(run.model() / "model.safetensors", "no weights");
  const ProgramResult weights = ptrain_on(2, {"verify", run.config(), "--batch.global", "6"});
  EXPECT_EQ(weights.code, 3) << weights.err;
  EXPECT_EQ(mesh.out + rows.out + weights.out, "");
}

}  // namespace
}  // namespace ptrain
