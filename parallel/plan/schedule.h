// What each rank of a pipeline does, in order, as lists of actions: the schedules themselves and the passes
// that lower them (transfers, hands, reductions, slots). Pure: nothing here runs anything; see
// simulate.h for judging a schedule and parallel/run/pipeline.h for playing it.
//
// A *position* is a place along the pipeline axis, a *stage* a run of layers, a *chunk* the index of a stage
// among those of its position. With one chunk a position, stage and position are the same number.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain {

enum class ActionKind : uint8_t {
  forward,
  backward,          // input and weights at once
  backward_input,    // zero bubble: the gradient that the stage before waits for
  backward_weights,  // zero bubble: the rest, whenever there is time
  send_activation,   // to the next stage; starts and returns
  receive_activation,
  send_gradient,  // to the stage before; starts and returns
  receive_gradient,
  hand_activation,  // to the next stage where it lies on the same position: a copy in memory
  hand_gradient,    // to the stage before where it lies on the same position
  reduce,           // starts the sum of a bucket's gradients over the data axis
};

std::string_view name_of(ActionKind kind);
bool is_forward(ActionKind kind);
bool is_backward(ActionKind kind);  // whole or half
bool is_compute(ActionKind kind);
bool is_send(ActionKind kind);
bool is_receive(ActionKind kind);
bool is_hand(ActionKind kind);

/// Messages of one lane between two positions arrive in the order in which they were sent. No action moves
/// tied gradients: they are exchanged when a step's sums are done.
enum class TransferLane : uint8_t { activation, gradient, tied };
TransferLane lane_of(ActionKind kind);  // of a send or receive
std::string_view name_of(TransferLane lane);

struct Action {
  ActionKind kind = ActionKind::forward;
  int chunk = 0;
  int micro = -1;     // of compute and of transfers between stages
  int peer = -1;      // the other position, of transfers
  int bucket = -1;    // of reduce; of a backward: only the units of this bucket, -1 = the whole stage
  int slot = -1;      // of compute and transfers, once slots are given: which set of activations of the chunk
  int to_chunk = -1;  // of hands: the chunk that gets what `chunk` made
  int to_slot = -1;   // of hands: the slot of the same micro over there

  bool operator==(const Action&) const = default;
};

/// "F3", "B3", "B3/1" (bucket 1), "send activation 3 to 1", with several chunks "F3'1", "hand activation 3 to
/// '1"
std::string to_string(const Action& action);

/// How stages go over the positions when there are several chunks. round: 0 1 2 0 1 2; there_and_back:
/// 0 1 2 2 1 0, so that the first and the last stage share a position.
enum class StageOrder : uint8_t { round, there_and_back };

/// Which stage lies on which position.
class StageMap {
 public:
  /// Over the positions, `chunks` times: chunk c holds the stages c * positions and on.
  StageMap(int positions, int chunks = 1, StageOrder order = StageOrder::round)
      : positions_(positions), chunks_(chunks), order_(order) {}

  int positions() const { return positions_; }
  int chunks() const { return chunks_; }
  StageOrder order() const { return order_; }
  int stages() const { return positions_ * chunks_; }
  int position_of(int stage) const {
    return is_back(chunk_of(stage)) ? positions_ - 1 - stage % positions_ : stage % positions_;
  }
  int chunk_of(int stage) const { return stage / positions_; }
  int stage_of(int position, int chunk) const {
    return chunk * positions_ + (is_back(chunk) ? positions_ - 1 - position : position);
  }
  bool is_first(int stage) const { return stage == 0; }
  bool is_last(int stage) const { return stage + 1 == stages(); }

 private:
  bool is_back(int chunk) const { return order_ == StageOrder::there_and_back && chunk % 2 == 1; }

  int positions_;
  int chunks_;
  StageOrder order_;
};

struct Schedule {
  std::string name;
  int micros = 0;
  std::vector<std::vector<Action>> programs;  // a position's actions, top to bottom
};

/// All forwards, then all backwards in ascending micro order (so that gradients add up as under 1f1b). A
/// single stage has nobody to wait for: it alternates as under 1f1b, so that a tied embedding, to whose
/// gradient both passes add, gets the same sums. Compute only.
Schedule gpipe(const StageMap& map, int micros);
/// p - s forwards to warm up (s the position, p positions), then one backward, one forward in turn. Compute
/// only. Errors (usage): more than one chunk a position, which is the interleaved schedule.
Schedule one_f_one_b(const StageMap& map, int micros);
/// Interleaved 1f1b (Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters",
/// 2.2.2): v chunks of p positions in StageOrder::round. Micros go in groups of p, a group through one chunk
/// after the other; the last group may be smaller. Warm-up of position s: 2 (p - 1 - s) + (v - 1) p forwards.
/// Bubble (p - 1) / (v m + p - 1) for p dividing m. Any number of micros; one chunk is 1f1b. Compute only.
Schedule interleaved(const StageMap& map, int micros);
/// Zero bubble H1 (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", 3.1): 1f1b with the backward in
/// halves. Position s puts the weights off by s micros: what it owes fills the end, where 1f1b waits. With
/// forward, input and weights of one length a third of 1f1b's bubble, and nowhere more than the p micros
/// alive that 1f1b's first position has. One chunk. Compute only.
Schedule zero_bubble_h1(const StageMap& map, int micros);
/// Zero bubble V (Qi et al. 2023, section 6; Qi et al. 2024, "Pipeline Parallelism with Controllable
/// Memory"): two chunks in StageOrder::there_and_back. With forward, input and weights of one length nobody
/// waits once its first forward has come; at most 2 p half stages are alive, as under 1f1b. Any number of
/// micros. Compute only.
Schedule zero_bubble_v(const StageMap& map, int micros);

/// Adds sends right behind the compute that makes what they carry, receives right before the compute that
/// needs it. On a lane both sides keep one order: where a receiver needs a later message first, the earlier
/// ones are received before it. Stages that follow each other on one position hand over in memory: a gradient
/// right behind the backward (input half) that makes it, an activation right before the forward that needs
/// it, since the slot that it goes to is held from then on.
Schedule with_transfers(Schedule schedule, const StageMap& map);

/// Cuts the last micro's backward (in halves: of the weights) of every stage at its buckets and starts each
/// bucket's reduction as soon as its gradients are whole; a gradient's send or hand goes before the last
/// reduction. buckets[stage] = number of buckets of that stage; bucket 0 is finished first.
Schedule with_reductions(Schedule schedule, const StageMap& map, const std::vector<int>& buckets);

/// Gives every micro the lowest free slot of its chunk, held from what brings its activation until its
/// backward (both halves) is done, and names it in all actions of that micro.
Schedule with_slots(Schedule schedule, const StageMap& map);

/// Moves every gradient's receive above the compute action before it, where that leaves its slot alone: the
/// message then travels while the rank computes. Needs slots.
Schedule with_early_receives(Schedule schedule);

/// [position][chunk]: how many sets of activations the schedule needs; equals Report::peak_live.
std::vector<std::vector<int>> slots_of(const Schedule& schedule, const StageMap& map);

/// The forwards of a schedule alone, in their order, as an evaluation plays them: lowered anew (transfers,
/// hands), in the slots that the schedule has, in turn. Nobody waits for ever: whatever a forward waits for,
/// the micro that was in its slot before, was long done when the backwards still lay between. Needs slots.
Schedule forwards_of(const Schedule& schedule, const StageMap& map);

/// Empty when all holds, else what is wrong, where and why it must not be: every micro's forward and backward
/// (whole, or its input and then its weights) exactly once on every stage, forward first; whatever adds to
/// gradients in ascending micro order: both halves, and the last stage's forwards; a micro's backward
/// segments complete and in order; reductions once, behind the last backward of their bucket; sends and
/// receives of every lane equal in number and order; every neighbour on the same position handed to; a slot
/// with one micro at a time, the same for all actions of the micro, and its gradient still there when it is
/// sent. buckets: as in with_reductions, or empty where the schedule has none.
std::string fault_of(const Schedule& schedule, const StageMap& map, const std::vector<int>& buckets = {});
/// Throws (defect) fault_of() unless it is empty.
void validate(const Schedule& schedule, const StageMap& map, const std::vector<int>& buckets = {});

}  // namespace ptrain
