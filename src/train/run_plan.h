// From the configuration and the model to the plan that the run executes. Pure.
#pragma once

#include "kernels/ops/scratch.h"
#include "parallel/plan/plan.h"
#include "src/model/spec.h"
#include "src/train/config_plan.h"

namespace ptrain {

/// What the configuration leaves open stands as parallel_config has it; plan_choice.h chooses.
/// Errors: ExitCode::usage where the model and the grid do not fit, or a row is longer than the model's
/// positions. `started`: the words for where the number of ranks comes from.
Plan plan_of(const Config& config, const ModelSpec& spec, int world, const Compute& compute,
             std::string_view started = "mpirun started");

/// The same for another choice of schedule, grid and so on.
Plan plan_for(const Config& config, const ModelSpec& spec, ParallelConfig parallel, int world,
              const Compute& compute, std::string_view started = "mpirun started");

/// The largest sizes that the ops of a rank meet, for their scratch.
ScratchSizes scratch_sizes(const ModelSpec& spec, const ParallelConfig& parallel, const Compute& compute);

/// parallel.tensor_strips with `auto` resolved: 2 on GPUs where a tensor group has 2 strips of at least 1,024
/// rows, so that sums and gathers hide under products; 1 on CPUs, which have no second stream, and in fp8.
int tensor_strips_of(const Config& config, const ParallelConfig& parallel, const Compute& compute);

/// Books in the workload what ops and products of those sizes want beside their tensors.
void book_scratch(Workload& workload, const ScratchSizes& sizes, DeviceKind device);

}  // namespace ptrain
