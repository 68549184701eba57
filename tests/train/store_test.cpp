#include "src/train/store.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "kernels/base/crc32c.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/metrics.h"
#include "src/train/tensorboard.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

TEST(MetricsFile, TakesOutATornLineAndRowsOfLaterSteps) {
  const TemporaryDirectory output;
  const std::filesystem::path path = output.path() / "metrics.jsonl";
  std::ofstream(path) << R"({"step":1,"loss":3.5})" << '\n'
                      << R"({"step":2,"eval_loss":3.0})" << '\n'
                      << R"({"step":3,"loss":2.5})" << '\n'
                      << R"({"step":4,"lo)";
  { MetricsFile(path, 2).append({{"step", 3}, {"loss", 2.25}}); }
  EXPECT_EQ(read_text(path, 1 << 20),
            "{\"step\":1,\"loss\":3.5}\n{\"step\":2,\"eval_loss\":3.0}\n{\"step\":3,\"loss\":2.25}\n");
}

TEST(MetricsFile, KnowsWhichStepsWereEvaluated) {
  const TemporaryDirectory output;
  const std::filesystem::path path = output.path() / "metrics.jsonl";
  EXPECT_FALSE(has_evaluation(path, 2));
  std::ofstream(path) << R"({"step":2,"loss":3.5})" << '\n'
                      << R"({"step":2,"eval_loss":3.0})" << '\n'
                      << R"({"step":3,"loss":2.5})" << '\n'
                      << R"({"step":3,"eval_lo)";
  EXPECT_TRUE(has_evaluation(path, 2));
  EXPECT_FALSE(has_evaluation(path, 3));
}

TEST(Metrics, RowHasEveryKeyAndNullWhereANumberIsNone) {
  StepResult result{.step = 7,
                    .loss = 1.5,
                    .grad_norm = NAN,
                    .supervised_tokens = 30,
                    .tokens = 48,
                    .padded_tokens = 64,
                    .step_s = 2};
  RunProgress progress{.steps = 10, .flops_per_token = 100};
  const Json row = metrics_row(result, progress, 1000.5);
  for (const char* key : {"step", "loss", "grad_norm", "lr", "supervised_tokens", "tokens", "pad_fraction",
                          "tokens_per_s", "step_s", "mfu", "peak_memory_bytes", "skipped_steps",
                          "checkpoint_stall_s", "exposed_communication", "time"}) {
    EXPECT_TRUE(row.contains(key)) << key;
  }
  EXPECT_EQ(row["pad_fraction"], 0.25);
  EXPECT_EQ(row["tokens_per_s"], 24.0);
  EXPECT_TRUE(row["grad_norm"].is_null());
  EXPECT_TRUE(row["mfu"].is_null());
  progress.peak_flops = 4800;
  EXPECT_EQ(metrics_row(result, progress, 0)["mfu"], 0.5);
  EXPECT_LT(step_line(result, progress).size(), 200u);
}

/// Bytes checked by hand against the format: record = u64 length, masked CRC, payload, masked CRC.
TEST(TensorBoard, RecordsHaveTheFormatsFrame) {
  const std::string record = scalar_record(2.0, 3, {{"loss", 1.0}});
  uint64_t length = 0;
  std::memcpy(&length, record.data(), 8);
  ASSERT_EQ(record.size(), 8 + 4 + length + 4);
  const auto masked = [](uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; };
  uint32_t length_crc = 0, payload_crc = 0;
  std::memcpy(&length_crc, record.data() + 8, 4);
  std::memcpy(&payload_crc, record.data() + 12 + length, 4);
  EXPECT_EQ(length_crc, masked(crc32c(record.data(), 8)));
  EXPECT_EQ(payload_crc, masked(crc32c(record.data() + 12, length)));
  const std::string want("\x09\0\0\0\0\0\0\0\x40\x10\x03\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\x80\x3f", 26);
  EXPECT_EQ(record.substr(12, length), want);
}

}  // namespace
}  // namespace ptrain
