#include "parallel/plan/launch_order.h"

#include <algorithm>
#include <array>
#include <set>
#include <tuple>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

size_t at(int64_t index) {
  return static_cast<size_t>(index);
}

Wire wire_of(TransferLane lane) {
  return lane == TransferLane::activation ? Wire::activation
         : lane == TransferLane::gradient ? Wire::gradient
                                          : Wire::tied;
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
        stage_(plan.stages[at(plan.map.stage_of(position_, 0))]),
        layout_(flat_layout_of(plan, rank)),
        slots_(at(plan.slots[at(position_)][0])) {
    const std::vector<Action>& program = plan_.program(rank_);
    is_last_ = std::ranges::none_of(
        program, [](const Action& action) { return action.kind == ActionKind::send_activation; });
  }

  std::vector<Launch> play() {
    for (const Action& action : plan_.program(rank_)) act(action);
    for (Slot& slot : slots_) {
      for (std::vector<int>* transfers :
           {&slot.sends[0], &slot.sends[1], &slot.receives[0], &slot.receives[1]})
        wait_all(*transfers);
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
    if (action.kind == ActionKind::add_tied) {
      wait_all(tied_receives_);
      return wait_all(tied_sends_);
    }
    reduce(action.bucket);
  }

  void forward(const Action& action) {
    Slot& slot = slots_[at(action.slot)];
    wait_all(slot.receives[0]);
    wait_all(slot.sends[0]);
    if (is_last_) wait_all(slot.sends[1]);
    for (int64_t unit = stage_.units.begin; unit < stage_.units.end(); ++unit) {
      const Unit& what = plan_.workload.units[at(unit)];
      for (const Collective& collective : what.collectives) {
        if (!collective.is_backward) add(collective, action.micro, unit);
      }
      if (what.kind != UnitKind::head) continue;
      // The head's gradient is made where its loss is.
      gather_parts(what, action.micro, unit);
      for (const Collective& collective : what.collectives) {
        if (collective.is_backward) add(collective, action.micro, unit);
      }
    }
  }

  void backward(const Action& action) {
    Slot& slot = slots_[at(action.slot)];
    if (action.kind != ActionKind::backward_weights) wait_all(slot.receives[1]);
    wait_all(slot.sends[1]);
    const Range units = action.bucket < 0 ? stage_.units : stage_.bucket_units[at(action.bucket)];
    for (int64_t unit = units.end(); unit-- > units.begin;) {
      const Unit& what = plan_.workload.units[at(unit)];
      if (what.kind == UnitKind::head) continue;
      for (const Collective& collective : what.collectives) {
        if (collective.is_backward) add(collective, action.micro, unit);
      }
    }
  }

  void add(const Collective& collective, int micro, int64_t unit) {
    if (plan_.mesh.tensor == 1) return;
    const int64_t bytes = local_rows(plan_, Rows::all) * collective.columns * size_bytes(collective.dtype);
    launches_.push_back({.kind = kind_of(collective.kind),
                         .wire = Wire::tensor,
                         .bytes = bytes,
                         .micro = micro,
                         .unit = static_cast<int>(unit)});
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
                             .wire = Wire::tensor,
                             .bytes = local_bytes(plan_, tensor, rank_),
                             .micro = micro,
                             .unit = static_cast<int>(index)});
    }
  }

  void move(const Action& action) {
    const TransferLane lane = lane_of(action.kind);
    const bool is_tied = lane == TransferLane::tied;
    if (action.kind == ActionKind::receive_gradient) wait_all(slots_[at(action.slot)].sends[1]);
    std::vector<int>& under_way = transfers_of(action, lane);
    if (is_send(action.kind)) wait_all(under_way);
    const auto add_message = [&](int64_t bytes) {
      under_way.push_back(static_cast<int>(launches_.size()));
      launches_.push_back({.kind = is_send(action.kind) ? LaunchKind::send : LaunchKind::receive,
                           .wire = wire_of(lane),
                           .is_started = true,
                           .peer = action.peer,
                           .bytes = bytes,
                           .micro = action.micro});
    };
    if (is_tied) return add_message(tied_bytes());
    for (const RowTensor& tensor : plan_.workload.boundary) add_message(local_bytes(plan_, tensor, rank_));
  }

  std::vector<int>& transfers_of(const Action& action, TransferLane lane) {
    if (lane == TransferLane::tied) return is_send(action.kind) ? tied_sends_ : tied_receives_;
    Slot& slot = slots_[at(action.slot)];
    return (is_send(action.kind) ? slot.sends : slot.receives)[static_cast<size_t>(lane)];
  }

  int64_t tied_bytes() const {
    int64_t elements = 0;
    for (const FlatPiece& flat : layout_.pieces) {
      const UnitPiece& piece = plan_.workload.units[at(flat.unit)].pieces[at(flat.index)];
      const bool is_first = stage_.units.begin == 0 && flat.unit == 0;
      if (is_first || piece.is_tied_copy) elements += flat.elements.count;
    }
    return elements * size_bytes(plan_.parallel.types.grad);
  }

  bool has_addends(const Piece& piece) const {
    if (plan_.mesh.tensor == 1 || !piece.is_trainable) return false;
    return piece.layout.splits.empty() ? piece.layout.has_partial_gradients
                                       : has_tensor_replicas(piece.shape, piece.layout, plan_.mesh);
  }

  void reduce(int bucket) {
    const FlatBucket& what = layout_.buckets[at(bucket)];
    int64_t addends = 0;
    for (const FlatPiece& flat : layout_.pieces) {
      const Piece& piece = plan_.workload.units[at(flat.unit)].pieces[at(flat.index)].piece;
      if (intersection(what.elements, flat.elements).count > 0 && has_addends(piece))
        addends += piece.shape.numel();
    }
    if (addends > 0)
      launches_.push_back({.kind = LaunchKind::all_reduce,
                           .wire = Wire::tensor,
                           .bytes = addends * size_bytes(plan_.parallel.types.grad),
                           .bucket = bucket});
    if (plan_.mesh.data == 1) return;
    reductions_.push_back(static_cast<int>(launches_.size()));
    launches_.push_back({.kind = LaunchKind::reduce_scatter,
                         .wire = Wire::data,
                         .is_started = true,
                         .bytes = what.elements.count * size_bytes(plan_.parallel.types.reduce),
                         .bucket = bucket});
    reduced_.push_back(bucket);
  }

  /// The end of the sums, loss and norm over all ranks, the parameters' exchange.
  void finish_step() {
    wait_all(reductions_);
    if (plan_.parallel.zero == 0) gather(reduced_, plan_.parallel.types.reduce);
    if (plan_.mesh.world() > 1)
      launches_.push_back(
          {.kind = LaunchKind::all_reduce, .wire = Wire::world, .bytes = 2 * size_bytes(DType::f64)});
    if (plan_.parallel.zero == 0) return;
    std::vector<int> all;
    for (size_t bucket = 0; bucket < layout_.buckets.size(); ++bucket)
      all.push_back(static_cast<int>(bucket));
    gather(all, plan_.parallel.types.param);
  }

  void gather(const std::vector<int>& buckets, DType dtype) {
    if (plan_.mesh.data == 1) return;
    for (int bucket : buckets)
      launches_.push_back({.kind = LaunchKind::all_gather,
                           .wire = Wire::data,
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
  const StagePlan& stage_;
  FlatLayout layout_;
  bool is_last_ = false;  // no activation leaves it
  std::vector<Slot> slots_;
  std::vector<int> tied_sends_, tied_receives_, reductions_, reduced_;
  std::vector<Launch> launches_;
};

/// First and last index of an axis.
std::vector<int> ends_of(int size) {
  return size == 1 ? std::vector{0} : std::vector{0, size - 1};
}

}  // namespace

std::string_view name_of(LaunchKind kind) {
  constexpr std::string_view names[] = {"all-reduce", "all-gather", "reduce-scatter",
                                        "send",       "receive",    "wait"};
  return names[static_cast<size_t>(kind)];
}

std::string_view name_of(Wire wire) {
  constexpr std::string_view names[] = {"tensor group",    "data group",    "world",
                                        "activation lane", "gradient lane", "tied lane"};
  return names[static_cast<size_t>(wire)];
}

std::string to_string(const Launch& launch) {
  std::string text =
      fmt::format("{} of {} bytes on the {}", name_of(launch.kind), launch.bytes, name_of(launch.wire));
  if (launch.kind == LaunchKind::send) text += fmt::format(" to position {}", launch.peer);
  if (launch.kind == LaunchKind::receive) text += fmt::format(" from position {}", launch.peer);
  std::string what;
  const auto say = [&](const char* name, int value) {
    if (value >= 0) what += fmt::format("{}{} {}", what.empty() ? "" : ", ", name, value);
  };
  say("micro", launch.micro);
  say("unit", launch.unit);
  say("bucket", launch.bucket);
  return what.empty() ? text : fmt::format("{} ({})", text, what);
}

std::vector<TransferEdge> transfer_edges(const Plan& plan) {
  std::set<std::tuple<TransferLane, int, int>> found;
  for (size_t position = 0; position < plan.schedule.programs.size(); ++position) {
    for (const Action& action : plan.schedule.programs[position]) {
      if (is_send(action.kind)) found.insert({lane_of(action.kind), static_cast<int>(position), action.peer});
    }
  }
  std::vector<TransferEdge> edges;
  for (const auto& [lane, from, to] : found) edges.push_back({lane, from, to});
  return edges;
}

int communication_streams(const Plan& plan) {
  std::vector<int> ends(at(plan.mesh.pipeline));
  for (const TransferEdge& edge : transfer_edges(plan)) {
    ++ends[at(edge.from)];
    ++ends[at(edge.to)];
  }
  return 2 + *std::ranges::max_element(ends);
}

std::vector<Launch> launches_of(const Plan& plan, int rank) {
  check(plan.map.chunks() == 1, "launches of {} chunks a position", plan.map.chunks());
  return Launcher(plan, rank).play();
}

void check_launch_order(const Plan& plan) {
  std::vector<RankLaunches> ranks;
  for (int position = 0; position < plan.mesh.pipeline; ++position) {
    for (int data : ends_of(plan.mesh.data)) {
      for (int tensor : ends_of(plan.mesh.tensor)) {
        const int rank = plan.mesh.rank_of({.pipeline = position, .data = data, .tensor = tensor});
        ranks.push_back({rank, launches_of(plan, rank)});
      }
    }
  }
  const std::string fault = launch_fault(plan.mesh, ranks);
  check(fault.empty(), "the devices of this plan would wait for each other for ever: {}", fault);
}

}  // namespace ptrain
