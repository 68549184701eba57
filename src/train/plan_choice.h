// From a configuration that says auto to the plan that the run executes: what is open, how much a rank may
// hold, the choice. Not for choosing itself: parallel/plan/choose.h.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "parallel/comm/communicator.h"
#include "parallel/plan/choose.h"
#include "src/train/run_device.h"
#include "src/train/run_plan.h"

namespace ptrain {

/// What the configuration leaves open: parallel.schedule auto, train.recompute auto.
Open open_of(const Config& config);

/// Makes plans of other choices for the same model and batch, on tensor * pipeline * data ranks. Sequence
/// parallelism follows the configuration on each grid. Refers to its arguments.
PlanMaker plan_maker(const Config& config, const ModelSpec& spec, const Compute& compute,
                     std::string_view started);

struct ChosenPlan {
  Plan plan;
  std::string why;  // one line; empty where nothing was open
};

/// plan_of with what is open chosen for `hardware`. Errors: those of plan_of.
ChosenPlan chosen_plan(const Config& config, const ModelSpec& spec, int world, const Compute& compute,
                       const Hardware& hardware, std::string_view started = "mpirun started");

/// A collective: the bytes that every rank may hold, the same number everywhere. On GPUs the least that is
/// free without what CUDA and its libraries take; on CPUs the least of host memory (or its control group's
/// limit) over the ranks of that host, less a tenth for the rest of the system. `hosts` as of RunEnvironment:
/// empty = all on one host. Nothing where the run is for another device than the one here.
std::optional<int64_t> memory_of_ranks(Communicator& world, const Device& device, const Compute& compute,
                                       std::span<const std::string> hosts);

/// A collective where the configuration leaves something open: what to choose for, ideal_hardware with that
/// memory.
Hardware room_of_ranks(Communicator& world, const Device& device, const Config& config,
                       std::span<const std::string> hosts);

}  // namespace ptrain
