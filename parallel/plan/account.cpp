// What a rank of a plan holds and sends; declared in plan.h.
#include <algorithm>
#include <map>

#include "kernels/base/error.h"
#include "parallel/plan/plan.h"

namespace ptrain {
namespace {

size_t at(int64_t index) {
  return static_cast<size_t>(index);
}

int64_t sum_bytes(const Plan& plan, const std::vector<RowTensor>& tensors, int rank) {
  int64_t bytes = 0;
  for (const RowTensor& tensor : tensors) bytes += local_bytes(plan, tensor, rank);
  return bytes;
}

const UnitPiece& piece_of(const Plan& plan, const FlatPiece& flat) {
  return plan.workload.units[at(flat.unit)].pieces[at(flat.index)];
}

/// Replicas along the tensor axis hold addends of this weight's gradient.
bool has_addends(const Plan& plan, const Piece& piece) {
  if (plan.mesh.tensor == 1 || !piece.is_trainable) return false;
  return piece.layout.splits.empty() ? piece.layout.has_partial_gradients
                                     : has_tensor_replicas(piece.shape, piece.layout, plan.mesh);
}

/// Global elements of a bucket's weights whose addends are summed over the tensor axis.
int64_t addend_elements(const Plan& plan, const FlatLayout& layout, const FlatBucket& bucket) {
  int64_t elements = 0;
  for (const FlatPiece& flat : layout.pieces) {
    const Piece& piece = piece_of(plan, flat).piece;
    const bool is_inside = flat.unit >= bucket.units.begin && flat.unit < bucket.units.end();
    if (is_inside && has_addends(plan, piece)) elements += piece.shape.numel();
  }
  return elements;
}

/// Elements of the tied embedding on this rank, where its two copies lie on different positions; else 0.
int64_t tied_elements(const Plan& plan, const FlatLayout& layout, int stage) {
  if (!plan.is_tied_apart) return 0;
  int64_t elements = 0;
  for (const FlatPiece& flat : layout.pieces) {
    const bool is_first = stage == 0 && flat.unit == 0;
    if (is_first || piece_of(plan, flat).is_tied_copy) elements += flat.elements.count;
  }
  return elements;
}

void book_state(const Plan& plan, const FlatLayout& layout, Ledger& ledger) {
  const StateTypes& types = plan.parallel.types;
  const int64_t trainable = layout.trainable_elements;
  const int64_t updated = plan.parallel.zero == 0 ? trainable : shard_elements(layout);
  ledger.book("parameters", MemoryKind::weights, layout.elements * size_bytes(types.param));
  ledger.book("gradients", MemoryKind::gradients, trainable * size_bytes(types.grad));
  if (types.master != types.param) {
    ledger.book("master weights", MemoryKind::master, updated * size_bytes(types.master));
  }
  ledger.book("moments", MemoryKind::moments, updated * size_bytes(types.moments), 2);
}

/// Books a list of tensors, each rounded up as one grant; what joins its neighbour is one grant with it.
void book_all(const Plan& plan, const std::string& prefix, const std::vector<RowTensor>& tensors,
              MemoryKind kind, int64_t count, int rank, Ledger& ledger) {
  int64_t joint_bytes = 0;
  std::string name;
  for (const RowTensor& tensor : tensors) {
    joint_bytes += local_bytes(plan, tensor, rank);
    name += tensor.name;
    if (tensor.joins_next) continue;
    ledger.book(prefix + name, kind, joint_bytes, count);
    joint_bytes = 0;
    name.clear();
  }
}

void book_activations(const Plan& plan, const StagePlan& stage, int rank, Ledger& ledger) {
  const int slots = plan.slots[at(stage.position)][at(stage.chunk)];
  const auto book = [&](const std::string& prefix, const std::vector<RowTensor>& tensors) {
    book_all(plan, prefix, tensors, MemoryKind::activations, slots, rank, ledger);
  };
  book("", plan.workload.inputs);
  for (int64_t unit = stage.units.begin; unit < stage.units.end(); ++unit) {
    const Unit& what = plan.workload.units[at(unit)];
    book(what.name + " ", what.kept);
  }
  // The stage's output, and the gradient that runs back through it.
  book("output ", plan.workload.boundary);
  book("gradient of ", plan.workload.boundary);
}

void book_scratch(const Plan& plan, const StagePlan& stage, int rank, Ledger& ledger) {
  std::map<UnitKind, const Unit*> largest;
  const auto need = [&](const Unit& unit) {
    return sum_bytes(plan, unit.scratch, rank) + unit.scratch_bytes;
  };
  for (int64_t i = stage.units.begin; i < stage.units.end(); ++i) {
    const Unit& unit = plan.workload.units[at(i)];
    const Unit*& so_far = largest[unit.kind];
    if (so_far == nullptr || need(unit) > need(*so_far)) so_far = &unit;
  }
  book_all(plan, "", plan.workload.tables, MemoryKind::scratch, 1, rank, ledger);
  for (const auto& [kind, unit] : largest) {
    const std::string prefix = kind == UnitKind::block ? "block " : unit->name + " ";
    book_all(plan, prefix, unit->scratch, MemoryKind::scratch, 1, rank, ledger);
    ledger.book(prefix + "other", MemoryKind::scratch, unit->scratch_bytes);
  }
}

void book_communication(const Plan& plan, const FlatLayout& layout, int stage, Ledger& ledger) {
  const int64_t grad = size_bytes(plan.parallel.types.grad);
  int64_t staging = 0;
  for (const FlatBucket& bucket : layout.buckets) {
    staging = std::max(staging, addend_elements(plan, layout, bucket));
  }
  ledger.book("sums of replicas", MemoryKind::communication, staging * grad);
  ledger.book("tied gradient", MemoryKind::communication, tied_elements(plan, layout, stage) * grad);
}

enum class Half { all_reduce, one_way };  // an all-reduce is a reduce-scatter and an all-gather

void add(AxisTraffic& traffic, int64_t bytes, int ranks, Half half, int64_t times = 1) {
  if (ranks < 2 || bytes == 0) return;
  const int64_t ways = half == Half::all_reduce ? 2 : 1;
  traffic.bytes += times * ways * (bytes * (ranks - 1) / ranks);
  traffic.messages += times * ways * (ranks - 1);
}

void add_tensor(const Plan& plan, const StagePlan& stage, const FlatLayout& layout, AxisTraffic& traffic) {
  const int tensor = plan.mesh.tensor;
  if (tensor < 2) return;
  const int64_t rows = local_rows(plan, Rows::all);
  for (int64_t unit = stage.units.begin; unit < stage.units.end(); ++unit) {
    for (const Collective& collective : plan.workload.units[at(unit)].collectives) {
      const int64_t bytes = rows * collective.columns * size_bytes(collective.dtype);
      const Half half = collective.kind == CollectiveKind::all_reduce ? Half::all_reduce : Half::one_way;
      add(traffic, bytes, tensor, half, plan.micros);
    }
  }
  for (const FlatBucket& bucket : layout.buckets) {
    const int64_t bytes = addend_elements(plan, layout, bucket) * size_bytes(plan.parallel.types.grad);
    add(traffic, bytes, tensor, Half::all_reduce);
  }
}

void add_data(const Plan& plan, const FlatLayout& layout, AxisTraffic& traffic) {
  const StateTypes& types = plan.parallel.types;
  for (const FlatBucket& bucket : layout.buckets) {
    const int64_t elements = bucket.elements.count;
    if (plan.parallel.zero == 0) {
      add(traffic, elements * size_bytes(types.reduce), plan.mesh.data, Half::all_reduce);
    } else {
      add(traffic, elements * size_bytes(types.reduce), plan.mesh.data, Half::one_way);
      add(traffic, elements * size_bytes(types.param), plan.mesh.data, Half::one_way);
    }
  }
}

}  // namespace

int64_t local_rows(const Plan& plan, Rows rows) {
  const int parts = plan.parallel.is_sequence_parallel ? plan.mesh.tensor : 1;
  const int64_t share = (plan.rows + parts - 1) / parts;
  switch (rows) {
    case Rows::all:
      return share * parts;
    case Rows::exact:
      return plan.rows;
    case Rows::share:
      return share;
    case Rows::time:
      return plan.parallel.sequence_length;
  }
  return 0;
}

int64_t local_columns(const Plan& plan, const RowTensor& tensor, int rank) {
  if (!tensor.split) return tensor.columns;
  return local_box({tensor.columns}, {.splits = {*tensor.split}}, plan.mesh, rank).extent[0];
}

int64_t local_bytes(const Plan& plan, const RowTensor& tensor, int rank) {
  int64_t rows = local_rows(plan, tensor.rows);
  if (tensor.max_rows > 0) rows = std::min(rows, tensor.max_rows);
  if (tensor.is_from_each_rank) rows *= plan.mesh.tensor;
  return rows * local_columns(plan, tensor, rank) * size_bytes(tensor.dtype);
}

Ledger ledger_of(const Plan& plan, int rank) {
  Ledger ledger;
  ledger.book("scalars", MemoryKind::scratch, 3 * size_bytes(DType::f64));
  ledger.book("ops", MemoryKind::scratch, plan.workload.op_scratch_bytes);
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  for (int chunk = 0; chunk < plan.map.chunks(); ++chunk) {
    const int stage = plan.map.stage_of(position, chunk);
    const FlatLayout layout = flat_layout_of(plan, rank, chunk);
    book_state(plan, layout, ledger);
    book_activations(plan, plan.stages[at(stage)], rank, ledger);
    book_scratch(plan, plan.stages[at(stage)], rank, ledger);
    book_communication(plan, layout, stage, ledger);
  }
  return ledger;
}

RankTraffic traffic_of(const Plan& plan, int rank) {
  RankTraffic traffic;
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  for (int chunk = 0; chunk < plan.map.chunks(); ++chunk) {
    const int stage = plan.map.stage_of(position, chunk);
    const FlatLayout layout = flat_layout_of(plan, rank, chunk);
    add_tensor(plan, plan.stages[at(stage)], layout, traffic.tensor);
    add_data(plan, layout, traffic.data);
    const int64_t tied = tied_elements(plan, layout, stage) * size_bytes(plan.parallel.types.grad);
    const int64_t bundle = sum_bytes(plan, plan.workload.boundary, rank);
    const auto tensors = static_cast<int64_t>(plan.workload.boundary.size());
    for (const Action& action : plan.program(rank)) {
      if (action.chunk != chunk || !is_send(action.kind)) continue;
      traffic.pipeline.bytes += action.kind == ActionKind::send_tied ? tied : bundle;
      traffic.pipeline.messages += action.kind == ActionKind::send_tied ? 1 : tensors;
    }
  }
  return traffic;
}

}  // namespace ptrain
