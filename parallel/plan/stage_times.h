// What a micro-batch takes the ranks of a stage on given hardware, on paper. Pure; estimate.h puts the stages
// together.
#pragma once

#include "parallel/plan/hardware.h"
#include "parallel/plan/plan.h"

namespace ptrain {

/// Which axes leave a node when ranks are placed in order, ranks_per_node to a node.
struct Crossing {
  bool tensor = false, data = false, pipeline = false;
};
Crossing crossing_of(const Mesh& mesh, int ranks_per_node);

/// Bytes a second that a rank sends along an axis: of its links, or of the network where the axis leaves a
/// node. With rings the k ranks that a group has on one node share k ranks' part of the network.
/// Example: 16 ranks on two nodes of 8, one data group: a ring leaves a node once and has the whole network.
double bytes_per_s_along(Axis axis, const Mesh& mesh, const Hardware& hardware);

/// (n - 1) / n: the share of S bytes that an all-gather or a reduce-scatter over n ranks sends from each.
double sent_share(int ranks);

struct StageTimes {
  double forward_s = 0, backward_s = 0;  // products; backward: with what is computed again
  double tensor_forward_s = 0,
         tensor_backward_s = 0;                    // of collectives of the tensor axis, what nothing hides
  double data_forward_s = 0, data_backward_s = 0;  // of the data axis (ZeRO 2, 3), beyond what compute hides
  double input_s = 0;  // of all of backward: the half that the stage before waits for

  double all_forward_s() const { return forward_s + tensor_forward_s + data_forward_s; }
  double all_backward_s() const { return backward_s + tensor_backward_s + data_backward_s; }
};

/// Of a micro-batch. ZeRO-2 sums every unit's gradients while the next unit runs backward; ZeRO-3 also
/// gathers the next unit's parameters, in forward and in backward: of each unit what takes longer than its
/// compute shows. Parameters that are still in their place are not gathered again. Sums that no grid changes
/// add every micro-batch's gradients to a tree in memory: two reads and a write.
StageTimes stage_times(const Plan& plan, int stage, const Hardware& hardware);

}  // namespace ptrain
