// The comparison of plans on GPUs: what is due of a CPU is due of them. Emulated devices and a fake NCCL
// between threads.
#include "kernels/ops/libraries.h"
#include "src/train/verify.h"
#include "tests/support/device_ranks.h"
#include "tests/support/ranks.h"
#include "tests/train/tiny_case.h"

namespace ptrain {
namespace {

TEST(DeviceVerify, PlansAgreeToTheBitWhereThatIsDue) {
  const TinyCase run;
  const LoadedConfig loaded = run.config("batch: {global: 4}\nprecision: bf16\n");
  const MakeNccl make = nccl_for_ranks(Through::nccl);
  std::vector<VariantReport> reports;
  run_ranks(2, [&](Communicator& world) {
    const Device device = device_of(world.rank(), Through::nccl);
    const std::unique_ptr<Nccl> nccl = make();
    const Stream stream(device);
    const std::unique_ptr<Libraries> libraries = make_libraries(device, {});
    Context context;
    context.device = device;
    context.stream = &stream;
    context.libraries = libraries.get();
    const auto found = verify_run(loaded, {.most = 7, .say = [](std::string_view) {}}, world,
                                  RunDevice(context, {.nccl = nccl.get(), .deadline_s = 20}));
    if (world.rank() == 0) reports = found;
  });
  EXPECT_EQ(reports.size(), 7u);
  for (const VariantReport& report : reports) {
    EXPECT_EQ(report.skipped, "") << report.name;
    EXPECT_EQ(report.difference, "") << report.name;
  }
}

}  // namespace
}  // namespace ptrain
