// Plays a rank's program: computes through a small interface, moves tensors over the pipeline axis without
// ever blocking in a send. Not for deciding anything: order, slots and peers are in the program.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/plan/schedule.h"
#include "parallel/plan/simulate.h"
#include "parallel/run/tracer.h"

namespace ptrain {

/// What a pipeline needs of the stages of a rank. An action names chunk, micro, slot and bucket.
class StageWork {
 public:
  virtual ~StageWork() = default;

  virtual void forward(const Action& action) = 0;
  /// action.kind: whole or half; action.bucket: only that bucket's units, -1 = all. The input half turns the
  /// slot's gradient of the output into that of the input and may write over the output; the weight half
  /// changes nothing that is sent or handed.
  virtual void backward(const Action& action) = 0;
  /// Copies within the rank, between slots of two chunks. hand_activation: the output of (chunk, slot) to the
  /// input of (to_chunk, to_slot); hand_gradient: the gradient of the input of (chunk, slot) to the gradient
  /// of the output of (to_chunk, to_slot).
  virtual void hand(const Action& action) = 0;
  /// Starts the sum of action.bucket's gradients; must not wait for the data axis.
  virtual void reduce(const Action& action) = 0;
  /// The bundle that a send or receive moves: contiguous tensors, as many and as large as at the other end.
  /// send_activation: the slot's output; receive_activation: its input; receive_gradient: the gradient of
  /// the output; send_gradient: that of the input. Valid until the next call.
  virtual std::span<const Tensor> tensors(const Action& transfer) = 0;
};

/// One rank's program with the transfers under way. Before an action touches a slot, whatever was sent from
/// the same memory is done, which on a device its stream waits for and not the host: forward waits for the
/// slot's last activation send (on the last stage, where it also writes the gradient, for that send too); a
/// gradient's receive or hand into the slot and backward for its last gradient send; the input half for its
/// activation send too. The weight half waits for no send: of a large message that would be waiting for its
/// receiver, who may be waiting for this rank (under zero bubble V it does).
class Pipeline {
 public:
  /// `program`: with slots. `pipeline`: the communicator along the pipeline axis, whose ranks are positions;
  /// null where the program has no transfers.
  Pipeline(std::vector<Action> program, Communicator* pipeline);

  /// Plays the program once, top to bottom, and returns when all its transfers are done; on a device, when
  /// everything is enqueued and the compute stream waits for them. Reductions may still be under way.
  void run(StageWork& work);

  /// When each action of the last run began and ended, in seconds since its start; waiting for what
  /// it needs lies before its begin. On a device: when they were enqueued.
  const std::vector<Interval>& intervals() const { return intervals_; }
  const std::vector<Action>& program() const { return program_; }

  /// Notes every action but reductions (which are under way when run() returns) while `tracer` is on: a send
  /// or receive from its start until it was seen to be done, which is looked for after every action. Null:
  /// none.
  void set_tracer(Tracer* tracer) { tracer_ = tracer; }
  /// Notes what it does and waits for. Null: nowhere.
  void set_op_ring(OpRing* ops) { ops_ = ops; }

 private:
  struct Transfers {  // of one bundle
    std::vector<Transfer> parts;
    Action action;         // that started them, as the next
    double begin_s = 0;    // on the tracer's clock
    bool is_open = false;  // its span has no end yet
  };
  struct SlotTransfers {
    std::array<Transfers, 2> sends, receives;  // by TransferLane activation, gradient
  };

  void send(StageWork& work, const Action& action);
  void receive(StageWork& work, const Action& action);
  void make_ready(const Action& action);
  void make_room(int chunk, int slot);
  Transfers& open(Transfers& under_way, const Action& action);
  void wait_all(Transfers& under_way);
  void close(Transfers& under_way);
  void look();
  SlotTransfers& slot_of(const Action& action) { return slot_at(action.chunk, action.slot); }
  SlotTransfers& slot_at(int chunk, int slot);
  Transfers& sends_of(const Action& action);
  Transfers& receives_of(const Action& action);

  std::vector<Action> program_;
  Communicator* pipeline_;
  std::vector<std::vector<SlotTransfers>> slots_;  // [chunk][slot]
  std::vector<bool> is_last_;                      // [chunk]: no activation leaves it, it makes gradients
  std::vector<Interval> intervals_;
  Tracer* tracer_ = nullptr;
  OpRing* ops_ = nullptr;
};

}  // namespace ptrain
