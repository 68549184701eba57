// What a rank launches in a step; declared in launch_order.h.
#include <algorithm>
#include <array>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/launch_order.h"
#include "parallel/plan/places.h"

namespace ptrain {
namespace {

LaunchWire wire_of(TransferLane lane) {
  return lane == TransferLane::activation ? LaunchWire::activation
         : lane == TransferLane::gradient ? LaunchWire::gradient
                                          : LaunchWire::tied;
}

LaunchKind kind_of(CollectiveKind kind) {
  return kind == CollectiveKind::all_reduce   ? LaunchKind::all_reduce
         : kind == CollectiveKind::all_gather ? LaunchKind::all_gather
                                              : LaunchKind::reduce_scatter;
}

/// Writes down what a rank launches while it plays its program.
class Launcher {
 public:
  Launcher(const Plan& plan, int rank)
      : plan_(plan),
        rank_(rank),
        position_(plan.mesh.coordinate_of(rank).pipeline),
        layout_(flat_layout_of(plan, rank)),
        residency_(plan.has_unit_gradients() ? unit_places(plan, layout_) : UnitPlaces{}),
        gathers_(layout_.buckets.size(), -1),
        unit_sums_(residency_.places().elements.size(), -1) {
    for (int slots : plan.slots[at(position_)]) slots_.emplace_back(at(slots));
    is_last_.resize(slots_.size(), true);
    for (const Action& action : plan_.program(rank_)) {
      if (action.kind == ActionKind::send_activation || action.kind == ActionKind::hand_activation)
        is_last_[at(action.chunk)] = false;
    }
  }

  std::vector<Launch> play() {
    start_exchange();
    for (const Action& action : plan_.program(rank_)) act(action);
    for (std::vector<Slot>& chunk : slots_) {
      for (Slot& slot : chunk) {
        for (std::vector<int>* transfers :
             {&slot.sends[0], &slot.sends[1], &slot.receives[0], &slot.receives[1]})
          wait_all(*transfers);
      }
    }
    finish_step();
    return std::move(launches_);
  }

 private:
  struct Slot {
    std::array<std::vector<int>, 2> sends, receives;  // by lane: activation, gradient
  };

  void act(const Action& action) {
    if (is_forward(action.kind)) return forward(action);
    if (is_backward(action.kind)) return backward(action);
    if (is_send(action.kind) || is_receive(action.kind)) return move(action);
    if (action.kind == ActionKind::hand_gradient)
      return wait_all(slots_[at(action.to_chunk)][at(action.to_slot)].sends[1]);
    if (action.kind == ActionKind::reduce) reduce(layout_.bucket_of(action.chunk, action.bucket));
  }

  const StagePlan& stage_of(const Action& action) const {
    return plan_.stages[at(plan_.map.stage_of(position_, action.chunk))];
  }
  Slot& slot_of(const Action& action) { return slots_[at(action.chunk)][at(action.slot)]; }

  void forward(const Action& action) {
    Slot& slot = slot_of(action);
    wait_all(slot.receives[0]);
    wait_all(slot.sends[0]);
    if (is_last_[at(action.chunk)]) wait_all(slot.sends[1]);
    const Range units = stage_of(action).units;
    for (int64_t unit = units.begin; unit < units.end(); ++unit) {
      const Unit& what = plan_.workload.units[at(unit)];
      // The head reads its table too.
      if (what.kind != UnitKind::table) need(unit, unit + 1 < units.end() ? unit + 1 : -1);
      if (what.kind == UnitKind::head && unit + 1 < units.end()) need(unit + 1, -1);
      for (const UnitCollective& collective : what.collectives) {
        if (!collective.is_backward) add(collective, action.micro, unit);
      }
      wait_for_layer();
      if (what.kind != UnitKind::head) continue;
      for (int64_t end = unit; end < units.end(); ++end) open_gradients(end);
      // The head's gradient is made where its loss is.
      gather_parts(what, action.micro, unit);
      for (const UnitCollective& collective : what.collectives) {
        if (collective.is_backward) add(collective, action.micro, unit);
      }
      wait_for_layer();
      for (int64_t end = unit; end < units.end(); ++end) sum_unit(end, action.micro);
    }
  }

  void backward(const Action& action) {
    Slot& slot = slot_of(action);
    if (action.kind != ActionKind::backward_weights) {
      wait_all(slot.receives[1]);
      wait_all(slot.sends[1]);
    }
    if (action.kind == ActionKind::backward_input) wait_all(slot.sends[0]);
    const StagePlan& stage = stage_of(action);
    const Range units = action.bucket < 0 ? stage.units : stage.bucket_units[at(action.bucket)];
    for (int64_t unit = units.end(); unit-- > units.begin;) {
      const Unit& what = plan_.workload.units[at(unit)];
      if (what.kind == UnitKind::head || what.kind == UnitKind::table) continue;
      const bool is_block = what.kind == UnitKind::block;
      if (is_block) {
        const bool has_next =
            unit > units.begin && plan_.workload.units[at(unit - 1)].kind == UnitKind::block;
        need(unit, has_next ? unit - 1 : -1);
      }
      open_gradients(unit);
      const bool is_again = plan_.recompute_of(stage, unit) == Recompute::full;
      for (const UnitCollective& collective : what.collectives) {
        if (is_again && collective.is_made_again && action.kind != ActionKind::backward_weights)
          add(collective, action.micro, unit);
      }
      wait_for_layer();
      for (const UnitCollective& collective : what.collectives) {
        if (collective.is_backward && runs_in(collective, action.kind)) add(collective, action.micro, unit);
      }
      wait_for_layer();
      sum_unit(unit, action.micro);
    }
  }

  static bool runs_in(const UnitCollective& collective, ActionKind kind) {
    if (kind == ActionKind::backward) return !collective.is_for_halves;
    return collective.is_of_weights == (kind == ActionKind::backward_weights);
  }

  // --- Units whose parameters or gradients come and go: as ParamSync and GradSync do it. -----------------

  /// After the last update each bucket's parameters are gathered while the step begins.
  void start_exchange() {
    if (plan_.mesh.data == 1 || plan_.zero == 0 || plan_.zero == 3) return;
    for (int bucket : exchange_order(layout_)) start_gather(bucket);
  }

  void start_gather(int bucket) {
    gathers_[at(bucket)] = static_cast<int>(launches_.size());
    launches_.push_back(
        {.kind = LaunchKind::all_gather,
         .wire = LaunchWire::data,
         .is_started = true,
         .bytes = layout_.buckets[at(bucket)].elements.count * size_bytes(plan_.parallel.types.param),
         .bucket = bucket});
  }

  void need(int64_t unit, int64_t next) {
    const int bucket = layout_.bucket_of_unit(unit);
    if (plan_.zero == 3 && residency_.take(bucket)) start_gather(bucket);
    wait_one(gathers_[at(bucket)]);
    if (plan_.zero != 3 || next < 0) return;
    const int ahead = layout_.bucket_of_unit(next);
    if (residency_.take(ahead)) start_gather(ahead);
  }

  void open_gradients(int64_t unit) {
    if (plan_.zero >= 2) wait_one(unit_sums_[at(place_of(unit))]);
  }

  void sum_unit(int64_t unit, int micro) {
    if (!plan_.has_unit_gradients()) return;
    if (plan_.zero < 2 && micro + 1 < plan_.micros) return;  // the tree's result is summed once
    const int bucket = layout_.bucket_of_unit(unit);
    sum_replicas(bucket);
    if (plan_.mesh.data == 1) return;
    int& started = unit_sums_[at(place_of(unit))];
    if (plan_.zero < 2) {
      reductions_.push_back(static_cast<int>(launches_.size()));
      reduced_.push_back(bucket);
    } else {
      wait_one(started);
      started = static_cast<int>(launches_.size());
    }
    start_sum(bucket);
  }

  int place_of(int64_t unit) const { return residency_.places().of_bucket[at(layout_.bucket_of_unit(unit))]; }

  void wait_one(int& index) {
    if (index >= 0)
      launches_.push_back({.kind = LaunchKind::wait, .wire = launches_[at(index)].wire, .awaited = index});
    index = -1;
  }

  // --- Inside layers. ------------------------------------------------------------------------------------

  /// A collective's strips set out together. Before that, what is under way is waited for, but for the one
  /// before where one of the two is ahead.
  void add(const UnitCollective& collective, int micro, int64_t unit) {
    if (plan_.mesh.tensor == 1) return;
    wait_all(in_layer_);
    if (!collective.is_ahead && !is_last_ahead_) wait_all(last_in_layer_);
    std::swap(in_layer_, last_in_layer_);
    is_last_ahead_ = collective.is_ahead;
    for (int strip = 0; strip < plan_.parallel.tensor_strips; ++strip) {
      last_in_layer_.push_back(static_cast<int>(launches_.size()));
      launches_.push_back(
          {.kind = kind_of(collective.kind),
           .wire = LaunchWire::tensor,
           .is_started = true,
           .bytes = strip_rows(plan_, strip) * collective.columns * size_bytes(collective.dtype),
           .micro = micro,
           .unit = static_cast<int>(unit)});
    }
  }

  void wait_for_layer() {
    wait_all(in_layer_);
    wait_all(last_in_layer_);
    is_last_ahead_ = false;
  }

  /// Small tensors that every rank gathers, chunk by chunk of the rows: as often as all rows take.
  void gather_parts(const Unit& unit, int micro, int64_t index) {
    if (plan_.mesh.tensor == 1) return;
    for (const RowTensor& tensor : unit.scratch) {
      if (!tensor.is_from_each_rank) continue;
      const int64_t rows = local_rows(plan_, tensor.rows);
      const int64_t at_once = tensor.max_rows > 0 ? std::min(rows, tensor.max_rows) : rows;
      for (int64_t row = 0; row < rows; row += at_once)
        launches_.push_back({.kind = LaunchKind::all_gather,
                             .wire = LaunchWire::tensor,
                             .bytes = local_bytes(plan_, tensor, rank_),
                             .micro = micro,
                             .unit = static_cast<int>(index)});
    }
  }

  /// Activations come from the stage before, gradients from the one behind.
  int later_stage(const Action& action) const {
    const bool is_here =
        action.kind == ActionKind::receive_activation || action.kind == ActionKind::send_gradient;
    return plan_.map.stage_of(position_, action.chunk) + (is_here ? 0 : 1);
  }

  void move(const Action& action) {
    const TransferLane lane = lane_of(action.kind);
    Slot& slot = slot_of(action);
    if (action.kind == ActionKind::receive_gradient) wait_all(slot.sends[1]);
    std::vector<int>& under_way =
        (is_send(action.kind) ? slot.sends : slot.receives)[static_cast<size_t>(lane)];
    if (is_send(action.kind)) wait_all(under_way);
    for (const RowTensor& tensor : plan_.workload.boundary) {
      under_way.push_back(static_cast<int>(launches_.size()));
      launches_.push_back({.kind = is_send(action.kind) ? LaunchKind::send : LaunchKind::receive,
                           .wire = wire_of(lane),
                           .is_started = true,
                           .peer = action.peer,
                           .bytes = local_bytes(plan_, tensor, rank_),
                           .micro = action.micro,
                           .stage = later_stage(action)});
    }
  }

  /// The tied embedding's gradient goes both ways, a shard of it.
  void exchange_tied() {
    const TiedEnds ends = tied_ends(plan_, layout_, rank_);
    if (ends.peer < 0) return;
    const int64_t elements = tied_elements(plan_, layout_, rank_);
    std::vector<int> both;
    for (LaunchKind kind : {LaunchKind::send, LaunchKind::receive}) {
      both.push_back(static_cast<int>(launches_.size()));
      launches_.push_back({.kind = kind,
                           .wire = LaunchWire::tied,
                           .is_started = true,
                           .peer = ends.peer,
                           .bytes = elements * size_bytes(plan_.parallel.types.grad)});
    }
    wait_all(both);
  }

  void sum_replicas(int bucket) {
    const int64_t addends = addend_elements(plan_, layout_, bucket);
    if (addends > 0)
      launches_.push_back({.kind = LaunchKind::all_reduce,
                           .wire = LaunchWire::tensor,
                           .bytes = addends * size_bytes(plan_.parallel.types.grad),
                           .bucket = bucket});
  }

  void start_sum(int bucket) {
    launches_.push_back(
        {.kind = LaunchKind::reduce_scatter,
         .wire = LaunchWire::data,
         .is_started = true,
         .bytes = layout_.buckets[at(bucket)].elements.count * size_bytes(plan_.parallel.types.reduce),
         .bucket = bucket});
  }

  void reduce(int bucket) {
    sum_replicas(bucket);
    if (plan_.mesh.data == 1) return;
    reductions_.push_back(static_cast<int>(launches_.size()));
    start_sum(bucket);
    reduced_.push_back(bucket);
  }

  /// The end of the sums, loss and norm over all ranks. The parameters' exchange begins the next step.
  void finish_step() {
    wait_all(reductions_);
    for (int& sum : unit_sums_) wait_one(sum);
    exchange_tied();
    if (plan_.zero == 0) gather(reduced_, plan_.parallel.types.reduce);
    const int64_t squares = plan_.exact_bins() > 0 ? 0 : 1;
    for (int64_t numbers : {plan_.losses() + squares, plan_.exact_bins()}) {
      if (plan_.mesh.world() > 1 && numbers > 0)
        launches_.push_back(
            {.kind = LaunchKind::all_reduce, .wire = LaunchWire::world, .bytes = numbers * 8});
    }
    for (int& gathered : gathers_) wait_one(gathered);
  }

  void gather(const std::vector<int>& buckets, DType dtype) {
    if (plan_.mesh.data == 1) return;
    for (int bucket : buckets)
      launches_.push_back({.kind = LaunchKind::all_gather,
                           .wire = LaunchWire::data,
                           .bytes = layout_.buckets[at(bucket)].elements.count * size_bytes(dtype),
                           .bucket = bucket});
  }

  void wait_all(std::vector<int>& transfers) {
    for (int index : transfers)
      launches_.push_back({.kind = LaunchKind::wait, .wire = launches_[at(index)].wire, .awaited = index});
    transfers.clear();
  }

  const Plan& plan_;
  int rank_;
  int position_;
  FlatLayout layout_;
  std::vector<bool> is_last_;             // [chunk]: no activation leaves it, it makes gradients
  std::vector<std::vector<Slot>> slots_;  // [chunk][slot]
  std::vector<int> reductions_, reduced_;
  Residency residency_;
  std::vector<int> gathers_;                   // [bucket]: its started gather, or -1
  std::vector<int> unit_sums_;                 // [place]: the sum that reads it, or -1
  std::vector<int> last_in_layer_, in_layer_;  // under way: strips of the last collective, and of that before
  bool is_last_ahead_ = false;
  std::vector<Launch> launches_;
};

}  // namespace

std::vector<Launch> launches_of(const Plan& plan, int rank) {
  return Launcher(plan, rank).play();
}

}  // namespace ptrain
