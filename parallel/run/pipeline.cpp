#include "parallel/run/pipeline.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t activation = 0, gradient = 1;

Lane wire_of(TransferLane lane) {
  return lane == TransferLane::activation ? Lane::activation : Lane::gradient;
}

/// An action as the ring of operations shows it. Whom a transfer waits for is noted by who waits.
Op op_of(const Action& action) {
  return {.name = name_of(action.kind).data(),
          .chunk = action.chunk,
          .micro = action.micro,
          .bucket = action.bucket};
}

}  // namespace

Pipeline::Pipeline(std::vector<Action> program, Communicator* pipeline)
    : program_(std::move(program)), pipeline_(pipeline), intervals_(program_.size()) {
  for (const Action& action : program_) {
    check(action.micro < 0 || action.slot >= 0, "{} has no slot", to_string(action));
    check(pipeline_ != nullptr || !(is_send(action.kind) || is_receive(action.kind)),
          "{} without a communicator", to_string(action));
    check(!is_hand(action.kind) || action.to_slot >= 0, "{} has no slot to go to", to_string(action));
    make_room(action.chunk, action.slot);
    if (is_hand(action.kind)) make_room(action.to_chunk, action.to_slot);
    is_last_.resize(slots_.size(), true);
    if (action.kind == ActionKind::send_activation || action.kind == ActionKind::hand_activation)
      is_last_[static_cast<size_t>(action.chunk)] = false;
  }
}

void Pipeline::make_room(int chunk, int slot) {
  const auto chunks = static_cast<size_t>(chunk + 1), slots = static_cast<size_t>(slot + 1);
  if (slots_.size() < chunks) slots_.resize(chunks);
  if (slots_[chunks - 1].size() < slots) slots_[chunks - 1].resize(slots);
}

Pipeline::SlotTransfers& Pipeline::slot_at(int chunk, int slot) {
  return slots_[static_cast<size_t>(chunk)][static_cast<size_t>(slot)];
}

Pipeline::Transfers& Pipeline::sends_of(const Action& action) {
  const TransferLane lane = lane_of(action.kind);
  return slot_of(action).sends[static_cast<size_t>(lane)];
}

Pipeline::Transfers& Pipeline::receives_of(const Action& action) {
  const TransferLane lane = lane_of(action.kind);
  return slot_of(action).receives[static_cast<size_t>(lane)];
}

/// Where the transfers of `action` go; its span begins.
Pipeline::Transfers& Pipeline::open(Transfers& under_way, const Action& action) {
  under_way.action = action;
  under_way.is_open = tracer_ != nullptr && tracer_->is_on();
  if (under_way.is_open) under_way.begin_s = tracer_->now_s();
  return under_way;
}

void Pipeline::close(Transfers& under_way) {
  if (under_way.is_open) tracer_->note(under_way.action, under_way.begin_s, tracer_->now_s());
  under_way.is_open = false;
}

void Pipeline::wait_all(Transfers& under_way) {
  if (under_way.parts.empty()) return;
  const OpNote note(ops_, op_of(under_way.action));
  for (Transfer& part : under_way.parts) part.wait();
  under_way.parts.clear();
  close(under_way);
}

/// Ends the spans of transfers that are done although nobody waits for them yet.
void Pipeline::look() {
  const auto look_at = [&](Transfers& under_way) {
    if (!under_way.is_open) return;
    if (std::ranges::all_of(under_way.parts, [](Transfer& part) { return part.is_done(); })) close(under_way);
  };
  for (std::vector<SlotTransfers>& chunk : slots_) {
    for (SlotTransfers& slot : chunk) {
      std::ranges::for_each(slot.sends, look_at);
      std::ranges::for_each(slot.receives, look_at);
    }
  }
}

void Pipeline::send(StageWork& work, const Action& action) {
  wait_all(sends_of(action));
  Transfers& under_way = open(sends_of(action), action);
  for (const Tensor& tensor : work.tensors(action)) {
    under_way.parts.push_back(pipeline_->isend(tensor, action.peer, wire_of(lane_of(action.kind))));
  }
}

void Pipeline::receive(StageWork& work, const Action& action) {
  // The slot's gradient may still be on its way out: it must not be overwritten.
  if (action.kind == ActionKind::receive_gradient) wait_all(slot_of(action).sends[gradient]);
  if (!receives_of(action).parts.empty()) {
    fail(ExitCode::defect, "{} before the last one into slot {} was used", to_string(action), action.slot);
  }
  Transfers& under_way = open(receives_of(action), action);
  for (const Tensor& tensor : work.tensors(action)) {
    under_way.parts.push_back(pipeline_->irecv(tensor, action.peer, wire_of(lane_of(action.kind))));
  }
}

void Pipeline::make_ready(const Action& action) {
  SlotTransfers& slot = slot_of(action);
  // What it reads must be here; what it overwrites must have left.
  switch (action.kind) {
    case ActionKind::forward:
      wait_all(slot.receives[activation]);
      wait_all(slot.sends[activation]);
      if (is_last_[static_cast<size_t>(action.chunk)]) wait_all(slot.sends[gradient]);
      return;
    case ActionKind::backward:
    case ActionKind::backward_input:
      wait_all(slot.receives[gradient]);
      wait_all(slot.sends[gradient]);
      // The halves leave what the weights need where the output was.
      if (action.kind == ActionKind::backward_input) wait_all(slot.sends[activation]);
      return;
    case ActionKind::hand_gradient:
      // The last micro's gradient may still be on its way out of the slot that this one goes to.
      wait_all(slot_at(action.to_chunk, action.to_slot).sends[gradient]);
      return;
    default:
      // Weights and a handed activation touch nothing that travels: inputs come by receives and hands alone,
      // which the forward of the slot's last micro has waited for.
      return;
  }
}

void Pipeline::run(StageWork& work) {
  const Clock::time_point start = Clock::now();
  const auto now_s = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const bool is_traced = tracer_ != nullptr && tracer_->is_on();
  for (size_t i = 0; i < program_.size(); ++i) {
    const Action& action = program_[i];
    // 1. Wait for what it needs; its own time begins after that.
    if (is_compute(action.kind) || is_hand(action.kind)) make_ready(action);
    const double begin_s = is_traced ? tracer_->now_s() : 0;
    intervals_[i].begin_s = now_s();
    // 2. Act.
    std::optional<OpNote> note;
    if (is_send(action.kind) || is_receive(action.kind)) {
      if (ops_ != nullptr) ops_->mark(op_of(action));
    } else {
      note.emplace(ops_, op_of(action));
    }
    if (is_forward(action.kind)) {
      work.forward(action);
    } else if (is_backward(action.kind)) {
      work.backward(action);
    } else if (is_send(action.kind)) {
      send(work, action);
    } else if (is_receive(action.kind)) {
      receive(work, action);
    } else if (is_hand(action.kind)) {
      work.hand(action);
    } else {
      work.reduce(action);
    }
    note.reset();
    // 3. Messages move only inside calls: give all lanes a turn between actions.
    if (pipeline_ != nullptr) pipeline_->poll();
    intervals_[i].end_s = now_s();
    if (is_traced && category_of(action.kind) == SpanCategory::compute)
      tracer_->note(action, begin_s, tracer_->now_s());
    if (is_traced && tracer_->sees_transfers()) look();
  }
  for (std::vector<SlotTransfers>& chunk : slots_) {
    for (SlotTransfers& slot : chunk) {
      for (Transfers& transfers : slot.sends) wait_all(transfers);
      for (Transfers& transfers : slot.receives) wait_all(transfers);
    }
  }
}

}  // namespace ptrain
