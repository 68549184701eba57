// The record of a machine's speed: kept, found again, and unknown wherever it is not sure.
#include "src/train/peak.h"

#include <gtest/gtest.h>

#include <fstream>

#include "src/io/json.h"
#include "tests/support/fixtures.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

const NodePeak some_peak{.sgemm_flops = 2e11, .fma_flops = 2.4e11, .read_bytes_per_s = 5.8e10};

TEST(Peak, IsFoundUnderItsCpuAndThreadsAlone) {
  const TemporaryDirectory directory;
  const std::filesystem::path file = directory.path() / "new" / "peak.json";
  EXPECT_FALSE(read_peak(file, {"CPU A", 2}));
  write_peak(file, {"CPU A", 2}, some_peak);
  const auto found = read_peak(file, {"CPU A", 2});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->sgemm_flops, some_peak.sgemm_flops);
  EXPECT_EQ(found->fma_flops, some_peak.fma_flops);
  EXPECT_EQ(found->read_bytes_per_s, some_peak.read_bytes_per_s);
  EXPECT_FALSE(read_peak(file, {"CPU A", 1}));
  EXPECT_FALSE(read_peak(file, {"CPU B", 2}));
}

TEST(Peak, ANewMeasurementReplacesItsOwnRecordAndKeepsOthers) {
  const TemporaryDirectory directory;
  const std::filesystem::path file = directory.path() / "peak.json";
  write_peak(file, {"CPU A", 2}, some_peak);
  write_peak(file, {"CPU A", 1}, {.sgemm_flops = 1e11, .fma_flops = 1.2e11, .read_bytes_per_s = 3e10});
  write_peak(file, {"CPU A", 2}, {.sgemm_flops = 3e11, .fma_flops = 4e11, .read_bytes_per_s = 6e10});
  EXPECT_EQ(read_peak(file, {"CPU A", 2})->sgemm_flops, 3e11);
  EXPECT_EQ(read_peak(file, {"CPU A", 1})->sgemm_flops, 1e11);
  EXPECT_EQ(read_json(file)["peaks"].size(), 2u);
}

TEST(Peak, ADamagedFileIsUnknownAndIsWrittenAnew) {
  const char* texts[] = {"",
                         "{",
                         "[]",
                         "{\"peaks\": 3}",
                         "{\"peaks\": [7, null]}",
                         "{\"peaks\": [{\"cpu\": \"CPU A\", \"threads\": 2}]}",
                         "{\"peaks\": [{\"cpu\": \"CPU A\", \"threads\": 2, \"sgemm_flops\": -1, "
                         "\"fma_flops\": 1, \"read_bytes_per_s\": 1}]}",
                         "{\"peaks\": [{\"cpu\": \"CPU A\", \"threads\": 2, \"sgemm_flops\": \"fast\", "
                         "\"fma_flops\": 1, \"read_bytes_per_s\": 1}]}"};
  for (const char* text : texts) {
    const TemporaryDirectory directory;
    const std::filesystem::path file = directory.path() / "peak.json";
    std::ofstream(file) << text;
    EXPECT_FALSE(read_peak(file, {"CPU A", 2})) << text;
    write_peak(file, {"CPU A", 2}, some_peak);
    EXPECT_TRUE(read_peak(file, {"CPU A", 2})) << text;
  }
}

TEST(Peak, OfTheJobIsTheSumOverNodesOrUnknown) {
  for (int nodes : {1, 2, 3}) {
    const int ranks_on_node = 2;
    run_ranks(nodes * ranks_on_node, [&](Communicator& world) {
      const int node = world.rank() / ranks_on_node;
      const auto peak = peak_of_job(world, 100.0 + node, ranks_on_node);
      ASSERT_TRUE(peak);
      EXPECT_DOUBLE_EQ(*peak, 100.0 * nodes + nodes * (nodes - 1) / 2.0);
      const bool knows = world.rank() > 0;
      EXPECT_FALSE(peak_of_job(world, knows ? std::optional(100.0) : std::nullopt, ranks_on_node));
    });
  }
}

TEST(Peak, TheCpuHasAName) {
  EXPECT_FALSE(cpu_model().empty());
  EXPECT_EQ(cpu_model(), cpu_model());
}

}  // namespace
}  // namespace ptrain
