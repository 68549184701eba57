// Sums of gradients on a device: the same as on the host, for replicas over the tensor axis and for shards.
#include <gtest/gtest.h>

#include "parallel/run/grad_sync.h"
#include "tests/parallel/plan/random_cases.h"
#include "tests/support/device_ranks.h"
#include "tests/support/emulation/emulated_device.h"
#include "tests/support/fake_nccl.h"

namespace ptrain {
namespace {

/// Small whole numbers: sums are the same in every order.
std::vector<float> gradients_of(int rank, int64_t elements) {
  std::vector<float> values;
  for (int64_t i = 0; i < elements; ++i) values.push_back(static_cast<float>((i * 7 + rank * 13) % 31));
  return values;
}

struct Case {
  int tensor, data, zero;
  bool has_depth;  // a replicated weight of three dimensions, cut in the middle
};

Workload workload_of(const Case& what) {
  Workload workload = toy_workload({});
  if (what.has_depth)
    workload.units[1].pieces.push_back(
        {.piece = {.name = "deep",
                   .shape = {3, 4, 5},
                   .layout = {.splits = {{.dim = 1, .unit = 2, .group = what.tensor}}}}});
  return workload;
}

/// All gradients of the rank after two steps of sums.
std::vector<float> summed_on_host(const Plan& plan, Communicator& world) {
  const MeshComms comms = make_mesh_comms(world, plan.mesh);
  const FlatLayout layout = flat_layout_of(plan, world.rank());
  GradSync sync(plan, layout, plan.mesh.coordinate_of(world.rank()).data, comms.tensor.get(),
                comms.data.get());
  std::vector<float> gradients = gradients_of(world.rank(), layout.trainable_elements);
  std::vector<float> staging(static_cast<size_t>(sync.staging_elements()));
  const FlatMemory memory(Tensor(gradients.data(), {std::ssize(gradients)}, DType::f32));
  sync.bind(memory, memory, Tensor(staging.data(), {std::ssize(staging)}, DType::f32), Context{});
  for (int bucket = 0; bucket < static_cast<int>(layout.buckets.size()); ++bucket) sync.start(bucket);
  sync.finish();
  sync.gather();
  return gradients;
}

std::vector<float> summed_on_device(const Plan& plan, DeviceRank& at) {
  const FlatLayout layout = flat_layout_of(plan, at.host.rank());
  GradSync sync(plan, layout, plan.mesh.coordinate_of(at.host.rank()).data, at.comms.tensor.get(),
                at.comms.data.get());
  const OwnedTensor gradients = at.zeros<float>(layout.trainable_elements);
  const OwnedTensor staging = at.zeros<float>(sync.staging_elements());
  Context context;
  context.device = gradients.view.device;
  context.stream = &at.compute;
  const FlatMemory memory(gradients.view);
  sync.bind(memory, memory, staging.view, context);
  const int64_t waited = emulation::counts().synchronizations;
  at.put(gradients_of(at.host.rank(), layout.trainable_elements), gradients.view);
  for (int bucket = 0; bucket < static_cast<int>(layout.buckets.size()); ++bucket) sync.start(bucket);
  sync.finish();
  sync.gather();
  if (at.nccl != nullptr) {
    EXPECT_EQ(emulation::counts().synchronizations, waited);
  }
  return at.get<float>(gradients.view);
}

TEST(DeviceGradSync, SumsAreThoseOfTheHost) {
  for (const Case& what :
       {Case{1, 2, 1, false}, Case{1, 3, 0, false}, Case{2, 1, 1, false}, Case{3, 1, 1, false},
        Case{2, 2, 1, false}, Case{2, 2, 0, false}, Case{2, 2, 1, true}}) {
    ParallelConfig parallel{
        .tensor = what.tensor, .data = what.data, .zero = what.zero, .sequence_length = 24};
    parallel.global = 2 * what.data;
    parallel.bucket_elements = 9'000;
    const Plan plan = make_plan(workload_of(what), parallel, what.tensor * what.data);
    EXPECT_GT(plan.stages[0].bucket_units.size(), 2u);
    for (Through through : {Through::nccl, Through::eager_nccl, Through::host}) {
      run_device_ranks(
          {.mesh = plan.mesh, .through = through, .seed = 7, .staging_bytes = 4'000}, [&](DeviceRank& at) {
            const std::vector<float> expected = summed_on_host(plan, at.host);
            const std::vector<float> found = summed_on_device(plan, at);
            // With shards a rank's other parts hold what the reduction left there.
            const FlatLayout layout = flat_layout_of(plan, at.host.rank());
            const int data = plan.mesh.coordinate_of(at.host.rank()).data;
            for (size_t b = 0; b < layout.buckets.size(); ++b) {
              const Range part =
                  what.zero == 0 ? layout.buckets[b].elements : shard_of(layout, static_cast<int>(b), data);
              for (int64_t i = part.begin; i < part.end(); ++i)
                ASSERT_EQ(found[static_cast<size_t>(i)], expected[static_cast<size_t>(i)])
                    << name_of(through) << " element " << i;
            }
          });
    }
  }
}

TEST(DeviceGradSync, GradientsOnADeviceWithoutAStreamAreADefect) {
  const Plan plan = make_plan(toy_workload({}), {.sequence_length = 24}, 1);
  const FlatLayout layout = flat_layout_of(plan, 0);
  GradSync sync(plan, layout, 0, nullptr, nullptr);
  const FlatMemory memory(Tensor(nullptr, {1}, DType::f32, gpu));
  EXPECT_THROW(sync.bind(memory, memory, {}, Context{}), Error);
}

}  // namespace
}  // namespace ptrain
