// What ranks agree on at each step's end, in one small all-reduce. What else they must decide together there
// is a field here, not a collective of its own.
#pragma once

#include "parallel/comm/communicator.h"
#include "src/io/checkpoint_saver.h"

namespace ptrain {

struct StepVote {
  bool is_stop_wanted = false;    // by any rank
  bool is_state_damaged = false;  // on any rank
  SaveProgress save;
  uint64_t imbalance = 0;  // ReplicaCheck::imbalance(); the sum over ranks, modulo 2^64
};

/// A collective: every rank's vote as one, the same everywhere.
StepVote over_ranks(Communicator& world, const StepVote& mine);

}  // namespace ptrain
