// What the devices of a plan communicate, rank by rank in the order of launching, and whether the ranks fit
// together: NCCL's operations have no tags, and one that waits on a GPU for a rank that waits for another one
// is a hang without a word. Pure; not for running anything.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/plan/plan.h"

namespace ptrain {

/// Messages of one lane from one position of the pipeline to another.
struct TransferEdge {
  TransferLane lane = TransferLane::activation;
  int from = 0;
  int to = 0;

  bool operator==(const TransferEdge&) const = default;
};
/// All that the plan sends along, each once, in the order of (lane, from, to).
std::vector<TransferEdge> transfer_edges(const Plan& plan);

/// Streams of a rank that may have work at the same time: of the ops, of collectives that a data and a tensor
/// group start, and one for each lane that ends here; the most of any rank. Example, a stage between two
/// others, without a tensor group: 2 + 4.
int communication_streams(const Plan& plan);

/// A wait is no communication: compute stops there until a started launch is done.
enum class LaunchKind : uint8_t { all_reduce, all_gather, reduce_scatter, send, receive, wait };
/// The communicator: of a group along an axis, of all ranks, or of a lane between two positions.
enum class LaunchWire : uint8_t { tensor, data, world, activation, gradient, tied };
std::string_view name_of(LaunchKind kind);
std::string_view name_of(LaunchWire wire);

struct Launch {
  LaunchKind kind = LaunchKind::wait;
  LaunchWire wire = LaunchWire::world;
  bool is_started = false;  // beside compute; messages always are. Else compute goes on when it is done
  int peer = -1;            // position at the other end, of messages
  int64_t bytes = 0;        // of the whole tensor, or of the message
  int awaited = -1;         // of a wait: index of the launch
  int micro = -1;           // what it is for: -1 where that does not apply
  int unit = -1;
  int bucket = -1;
  int stage = -1;  // of a message: of the two stages that it goes between the later one
};
/// "send of 4096 bytes on the activation lane to position 1 (micro 3)"
std::string to_string(const Launch& launch);

/// One step of `rank`, as Pipeline, GradSync and the optimizer's exchange launch it.
std::vector<Launch> launches_of(const Plan& plan, int rank);

struct RankLaunches {
  int rank = 0;
  std::vector<Launch> launches;
};

/// What does not fit between these ranks of the mesh, in words; empty when all does. Of every communicator
/// the members must launch the same in the same order; and with every operation held until its peers have
/// reached theirs nobody may wait for himself, round any number of ranks and communicators. A rank's
/// collectives are taken to run one at a time, in the order of launching, as they do where their kernels
/// leave no room for each other; lanes, which take few multiprocessors, run beside them.
std::string launch_fault(const Mesh& mesh, const std::vector<RankLaunches>& ranks);

/// Throws (defect) launch_fault() of the plan unless it is empty. Looks at every position of the pipeline and
/// at the first and last coordinates along data and tensor, since those between do what these do.
void check_launch_order(const Plan& plan);

}  // namespace ptrain
