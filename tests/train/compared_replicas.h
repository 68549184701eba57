// Replicas compared as a run does it: the vote's sum over ranks says whether they differ, find() which do.
#pragma once

#include <gtest/gtest.h>

#include "src/train/replica_check.h"
#include "src/train/step_vote.h"

namespace ptrain {

inline std::optional<ReplicaFault> compared(ReplicaCheck& replicas, Communicator& world) {
  const StepVote all = over_ranks(world, {.imbalance = replicas.imbalance()});
  const std::optional<ReplicaFault> fault = replicas.find();
  EXPECT_EQ(all.imbalance != 0, fault.has_value());
  return fault;
}

}  // namespace ptrain
