// What a GPU is refused for, and with which words.
#include "src/train/device_check.h"

#include <gtest/gtest.h>

#include "src/model/workload.h"

namespace ptrain {
namespace {

runtime::DeviceInfo device(int major, int minor, int64_t free_gib = 70) {
  return {.name = "GPU X",
          .total_bytes = int64_t{80} << 30,
          .free_bytes = free_gib << 30,
          .major = major,
          .minor = minor,
          .multiprocessors = 100,
          .pci_bus_id = {}};
}

TEST(DeviceCheck, DriversAndArchitecturesAreJudged) {
  struct Case {
    runtime::RuntimeVersions versions;
    runtime::DeviceInfo device;
    Config::Precision precision;
    std::string says;  // empty: no objection
  };
  using P = Config::Precision;
  for (const Case& c :
       {Case{{13000, 13000}, device(9, 0), P::bf16, ""}, Case{{13000, 13020}, device(8, 0), P::bf16, ""},
        Case{{13000, 12080},
             device(9, 0),
             P::bf16,
             "serves CUDA 12.8, but this program was built with CUDA 13.0"},
        Case{{12040, 12020}, device(9, 0), P::bf16, ""}, Case{{13000, 13000}, device(7, 5), P::fp16, "sm_75"},
        Case{{13000, 13000}, device(8, 6), P::fp8, "no 8-bit products"},
        Case{{13000, 13000}, device(8, 9), P::fp8, ""}, Case{{13000, 13000}, device(10, 0), P::fp8, ""}}) {
    const std::string objection = objection_to_device(c.versions, c.device, c.precision);
    if (c.says.empty()) {
      EXPECT_EQ(objection, "");
    } else {
      EXPECT_NE(objection.find(c.says), std::string::npos) << objection;
    }
  }
}

Plan plan_of_micro(int64_t micro) {
  ModelSpec spec;
  spec.V = 32000, spec.C = 2048, spec.L = 8, spec.H = 16, spec.K = 16, spec.D = 128, spec.F = 5632;
  ParallelConfig parallel;
  parallel.micro = parallel.global = micro;
  parallel.sequence_length = 4096;
  return make_plan(workload_of(spec, SequenceParallel::off, 1), parallel, 1);
}

TEST(DeviceCheck, APlanThatDoesNotFitIsRefusedWithTheMicroBatchThatWould) {
  const Plan plan = plan_of_micro(8);
  const int64_t wanted = ledger_of(plan, 0).total_bytes() + library_bytes;
  EXPECT_EQ(objection_to_memory(plan, 0, device(9, 0, (wanted >> 30) + 1)), "");
  const runtime::DeviceInfo small = device(9, 0, (wanted >> 30) - 1);
  const std::string objection = objection_to_memory(plan, 0, small);
  EXPECT_NE(objection.find("batch.micro: "), std::string::npos) << objection;
  const auto micro = std::stoll(objection.substr(objection.find("batch.micro: ") + 13));
  EXPECT_GE(micro, 1);
  EXPECT_LT(micro, 8);
  EXPECT_EQ(objection_to_memory(plan_of_micro(micro), 0, small), "");
  EXPECT_NE(objection_to_memory(plan, 0, device(9, 0, 1)).find("no batch.micro would fit"),
            std::string::npos);
}

}  // namespace
}  // namespace ptrain
