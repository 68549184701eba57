// The first lines of a run on GPUs: who computes where, and over which network. Text only; launch/ or the run
// prints it. Warnings and refusals of the decision are not in it: they go to the log and end the run.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "parallel/plan/network.h"
#include "parallel/plan/placement.h"

namespace ptrain {

/// A line that counts ranks, hosts and kinds of GPU, then a table: rank, host, GPU with its memory, NUMA
/// node, NIC. Of more than 16 ranks only the first and last are shown, and those whose GPU is of another kind
/// than rank 0's or lacks a NIC that rank 0 has.
std::vector<std::string> seat_lines(std::span<const RankSeat> seats);

/// What the network should be, and each variable that is set for it with the reason.
std::vector<std::string> decision_lines(const NetworkDecision& decision);

/// What NCCL really took, beside what was expected where the two differ. Not known: says how to find out.
std::string chosen_line(const ChosenNetwork& chosen, const NetworkDecision& decision);

}  // namespace ptrain
