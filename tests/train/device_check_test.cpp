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

Plan plan_of_micro(int64_t micro, Offload offload = Offload::none, int data = 1) {
  ModelSpec spec;
  spec.V = 32000, spec.C = 2048, spec.L = 8, spec.H = 16, spec.K = 16, spec.D = 128, spec.F = 5632;
  ParallelConfig parallel;
  parallel.micro = micro;
  parallel.global = micro * data;
  parallel.data = data;
  parallel.sequence_length = 4096;
  parallel.offload = offload;
  return make_plan(workload_of(spec, SequenceParallel::off, 1), parallel, data);
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

TEST(DeviceCheck, AnOffloadedOptimizerMustFitWithThoseOfTheOtherRanksOfItsHost) {
  const auto objection = [plan = plan_of_micro(1, Offload::optimizer, 4)](
                             int rank, const std::vector<std::string>& hosts, int64_t bytes) {
    return objection_to_host_memory(plan, rank, DeviceKind::cuda, hosts, bytes);
  };
  const int64_t each = host_ledger_of(plan_of_micro(1, Offload::optimizer, 4), 0).total_bytes();
  EXPECT_GT(each, int64_t{1} << 30);
  const std::vector<std::string> hosts = {"a", "b", "a", "a"};
  EXPECT_EQ(objection(0, hosts, 3 * each), "");
  EXPECT_EQ(objection(1, hosts, each), "");
  EXPECT_EQ(objection(0, {}, 4 * each), "");
  EXPECT_NE(objection(0, {}, 4 * each - 1).find("the 4 ranks here want"), std::string::npos);
  const std::string text = objection(2, hosts, 3 * each - 1);
  EXPECT_NE(text.find("the 3 ranks here want"), std::string::npos) << text;
  EXPECT_NE(text.find("set parallel.offload to none"), std::string::npos) << text;
  EXPECT_EQ(objection_to_host_memory(plan_of_micro(1), 0, DeviceKind::cuda, {}, 1), "");
}

TEST(DeviceCheck, TheCopyThatSavesAreWrittenFromMustFitToo) {
  Plan plan = plan_of_micro(1);
  const int64_t planned = ledger_of(plan, 0).total_bytes();
  EXPECT_EQ(snapshot_bytes(plan, 0), 0);
  EXPECT_EQ(objection_to_host_memory(plan, 0, DeviceKind::cpu, {}, planned), "");
  plan.parallel.saves_behind = true;
  const int64_t copy = snapshot_bytes(plan, 0);
  EXPECT_EQ(objection_to_host_memory(plan, 0, DeviceKind::cuda, {}, copy), "");
  EXPECT_EQ(objection_to_host_memory(plan, 0, DeviceKind::cpu, {}, planned + copy), "");
  const std::string text = objection_to_host_memory(plan, 0, DeviceKind::cpu, {}, planned + copy - 1);
  EXPECT_NE(text.find("set checkpoint.asynchronous to false"), std::string::npos) << text;
  EXPECT_EQ(objection_to_host_memory(plan, 0, DeviceKind::cpu, {}, planned - 1).find("asynchronous"),
            std::string::npos);
}

}  // namespace
}  // namespace ptrain
