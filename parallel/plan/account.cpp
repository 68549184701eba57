// What a rank of a plan holds and sends; declared in plan.h.
#include <algorithm>
#include <map>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/places.h"
#include "parallel/plan/plan.h"
#include "parallel/plan/sent.h"
#include "parallel/plan/sum_tree.h"

namespace ptrain {
namespace {

int64_t sum_bytes(const Plan& plan, const std::vector<RowTensor>& tensors, int rank) {
  int64_t bytes = 0;
  for (const RowTensor& tensor : tensors) bytes += local_bytes(plan, tensor, rank);
  return bytes;
}

/// Elements that a rank updates.
int64_t updated_elements(const Plan& plan, const FlatLayout& layout) {
  return plan.zero == 0 ? layout.trainable_elements : shard_elements(layout);
}

/// Of AdamW, beside the weights.
void book_optimizer(const Plan& plan, const FlatLayout& layout, Ledger& ledger) {
  const StateTypes& types = plan.parallel.types;
  const int64_t updated = updated_elements(plan, layout);
  if (types.master != types.param)
    ledger.book("master weights", MemoryKind::master, updated * size_bytes(types.master));
  ledger.book("moments", MemoryKind::moments, updated * size_bytes(types.moments), 2);
}

void book_state(const Plan& plan, const FlatLayout& layout, Ledger& ledger) {
  const StateTypes& types = plan.parallel.types;
  const int64_t trainable = layout.trainable_elements;
  const int64_t held = plan.zero == 3 ? shard_elements(layout) : layout.elements;
  const int64_t summed = plan.zero >= 2 ? shard_elements(layout) : trainable;
  ledger.book("parameters", MemoryKind::weights, held * size_bytes(types.param));
  ledger.book("gradients", MemoryKind::gradients, summed * size_bytes(types.grad));
  ledger.book("sums of micro-batches", MemoryKind::gradients, trainable * size_bytes(types.grad),
              plan.sum_levels());
  if (plan.parallel.offload == Offload::none) book_optimizer(plan, layout, ledger);
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
    std::vector<RowTensor> kept;
    for (const RowTensor& tensor : what.kept) {
      if (is_kept(tensor, plan.recompute_of(stage, unit), plan.has_halves())) kept.push_back(tensor);
    }
    book(what.name + " ", kept);
  }
  // The stage's output, and the gradient that runs back through it.
  book("output ", plan.workload.boundary);
  book("gradient of ", plan.workload.boundary);
}

/// Shared by all stages of the rank.
void book_scratch(const Plan& plan, int rank, Ledger& ledger) {
  std::map<UnitKind, const Unit*> largest;
  std::vector<RowTensor> again;
  const auto need = [&](const Unit& unit) {
    return sum_bytes(plan, unit.scratch, rank) + unit.scratch_bytes;
  };
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  for (const StagePlan& stage : plan.stages) {
    if (stage.position != position) continue;
    for (int64_t i = stage.units.begin; i < stage.units.end(); ++i) {
      const Unit& unit = plan.workload.units[at(i)];
      const Unit*& so_far = largest[unit.kind];
      if (so_far == nullptr || need(unit) > need(*so_far)) so_far = &unit;
    }
  }
  for (const RowTensor& tensor : largest[UnitKind::block]->kept) {
    if (is_made_again(tensor, plan.recompute_at(position))) again.push_back(tensor);
  }
  book_all(plan, "made again ", again, MemoryKind::scratch, 1, rank, ledger);
  book_all(plan, "", plan.workload.tables, MemoryKind::scratch, 1, rank, ledger);
  for (const auto& [kind, unit] : largest) {
    const std::string prefix = kind == UnitKind::block ? "block " : unit->name + " ";
    book_all(plan, prefix, unit->scratch, MemoryKind::scratch, 1, rank, ledger);
    ledger.book(prefix + "other", MemoryKind::scratch, unit->scratch_bytes);
  }
}

/// Places of the units under way, for what the rank does not hold whole.
void book_places(const Plan& plan, const FlatLayout& layout, Ledger& ledger) {
  if (!plan.has_unit_gradients()) return;
  for (const int64_t elements : unit_places(plan, layout).elements) {
    ledger.book("gradients of a unit", MemoryKind::communication,
                elements * size_bytes(plan.parallel.types.grad));
    if (plan.zero == 3)
      ledger.book("parameters of a unit", MemoryKind::communication,
                  elements * size_bytes(plan.parallel.types.param));
  }
}

void book_communication(const Plan& plan, const FlatLayout& layout, int rank, Ledger& ledger) {
  const int64_t grad = size_bytes(plan.parallel.types.grad);
  int64_t staging = 0;
  for (int bucket = 0; bucket < std::ssize(layout.buckets); ++bucket)
    staging = std::max(staging, addend_elements(plan, layout, bucket));
  ledger.book("sums of replicas", MemoryKind::communication, staging * grad);
  ledger.book("tied gradient", MemoryKind::communication, tied_elements(plan, layout, rank) * grad);
  book_places(plan, layout, ledger);
}

/// How often a micro-batch runs this collective of a unit.
int times_run(const Plan& plan, const StagePlan& stage, int64_t unit, const UnitCollective& collective) {
  if (collective.is_for_halves && !plan.has_halves()) return 0;
  const bool is_again = collective.is_made_again && plan.recompute_of(stage, unit) == Recompute::full;
  return is_again ? 2 : 1;
}

void add(AxisTraffic& traffic, const Sent& sent, int64_t times = 1) {
  traffic.bytes += times * sent.bytes;
  traffic.messages += times * sent.messages;
}

Sent sent_in(const UnitCollective& collective, int64_t elements, int rank, int ranks) {
  const int64_t unit = size_bytes(collective.dtype), part = elements / ranks * unit;
  switch (collective.kind) {
    case CollectiveKind::all_reduce:
      return sent_in_all_reduce(elements, unit, rank, ranks);
    case CollectiveKind::all_gather:
      return sent_in_all_gather(part, ranks);
    case CollectiveKind::reduce_scatter:
      return sent_in_reduce_scatter(part, ranks);
  }
  return {};
}

void add_tensor(const Plan& plan, const StagePlan& stage, int rank, AxisTraffic& traffic) {
  const int tensor = plan.mesh.tensor;
  if (tensor < 2) return;
  const int coordinate = plan.mesh.coordinate_of(rank).tensor;
  for (int64_t unit = stage.units.begin; unit < stage.units.end(); ++unit) {
    for (const UnitCollective& collective : plan.workload.units[at(unit)].collectives) {
      const int times = times_run(plan, stage, unit, collective) * plan.micros;
      for (int strip = 0; strip < plan.parallel.tensor_strips; ++strip)
        add(traffic, sent_in(collective, strip_rows(plan, strip) * collective.columns, coordinate, tensor),
            times);
    }
  }
}

/// How often gradients are summed over ranks in a step: as they are whole, or micro-batch by micro-batch.
int64_t sums_of(const Plan& plan) {
  return plan.zero >= 2 ? plan.micros : 1;
}

void add_replicas(const Plan& plan, const FlatLayout& layout, int rank, AxisTraffic& traffic) {
  const int coordinate = plan.mesh.coordinate_of(rank).tensor;
  for (int bucket = 0; bucket < std::ssize(layout.buckets); ++bucket) {
    const int64_t elements = addend_elements(plan, layout, bucket);
    if (elements == 0) continue;
    add(traffic,
        sent_in_all_reduce(elements, size_bytes(plan.parallel.types.grad), coordinate, plan.mesh.tensor),
        sums_of(plan));
  }
}

/// Bytes of a rank's shard of a bucket.
int64_t shard_bytes(const Plan& plan, const FlatBucket& bucket, DType dtype) {
  return bucket.elements.count / plan.mesh.data * size_bytes(dtype);
}

/// ZeRO-3: parameters gathered by the actions of a step, after an update.
void add_gathers(const Plan& plan, const FlatLayout& layout, int rank, AxisTraffic& traffic) {
  Residency residency(unit_places(plan, layout));
  for (const Action& action : plan.program(rank)) {
    if (!is_compute(action.kind)) continue;
    const int stage = plan.map.stage_of(plan.mesh.coordinate_of(rank).pipeline, action.chunk);
    for (const int64_t unit : units_read(plan, plan.stages[at(stage)].units, is_forward(action.kind))) {
      const int bucket = layout.bucket_of_unit(unit);
      if (residency.take(bucket))
        add(traffic,
            sent_in_all_gather(shard_bytes(plan, layout.buckets[at(bucket)], plan.parallel.types.param),
                               plan.mesh.data));
    }
  }
}

void add_data(const Plan& plan, const FlatLayout& layout, int rank, AxisTraffic& traffic) {
  const int data = plan.mesh.data;
  if (data < 2) return;
  const StateTypes& types = plan.parallel.types;
  for (const FlatBucket& bucket : layout.buckets) {
    const int64_t gradients = shard_bytes(plan, bucket, types.reduce);
    add(traffic, sent_in_reduce_scatter(gradients, data), sums_of(plan));
    if (plan.zero == 0) add(traffic, sent_in_all_gather(gradients, data));
    if (plan.zero == 1 || plan.zero == 2)
      add(traffic, sent_in_all_gather(shard_bytes(plan, bucket, types.param), data));
  }
  if (plan.zero == 3) add_gathers(plan, layout, rank, traffic);
}

}  // namespace

int64_t local_rows(const Plan& plan, Rows rows) {
  const bool is_cut = plan.parallel.is_sequence_parallel;
  const int strips = plan.parallel.tensor_strips;
  const int64_t share = is_cut ? strips * strip_share(plan.rows, plan.mesh.tensor, strips) : plan.rows;
  switch (rows) {
    case Rows::all:
      return is_cut ? share * plan.mesh.tensor : share;
    case Rows::exact:
      return plan.rows;
    case Rows::share:
      return share;
    case Rows::time:
      return plan.parallel.sequence_length;
  }
  return 0;
}

int64_t strip_rows(const Plan& plan, int strip) {
  return part_of(local_rows(plan, Rows::all), strip, plan.parallel.tensor_strips).count;
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
  ledger.book("scalars", MemoryKind::scratch, (plan.losses() + 2) * size_bytes(DType::f64));
  ledger.book("exact squares", MemoryKind::scratch, plan.exact_bins() * size_bytes(DType::i64));
  ledger.book("ops", MemoryKind::scratch, plan.workload.op_scratch_bytes);
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  const FlatLayout layout = flat_layout_of(plan, rank);
  book_state(plan, layout, ledger);
  for (int chunk = 0; chunk < plan.map.chunks(); ++chunk)
    book_activations(plan, plan.stages[at(plan.map.stage_of(position, chunk))], rank, ledger);
  book_scratch(plan, rank, ledger);
  book_communication(plan, layout, rank, ledger);
  return ledger;
}

Ledger host_ledger_of(const Plan& plan, int rank) {
  Ledger ledger;
  if (plan.parallel.offload == Offload::none) return ledger;
  const StateTypes& types = plan.parallel.types;
  const FlatLayout layout = flat_layout_of(plan, rank);
  book_optimizer(plan, layout, ledger);
  ledger.book("parameters", MemoryKind::weights, updated_elements(plan, layout) * size_bytes(types.param));
  int64_t most = 0;
  for (const FlatBucket& bucket : layout.buckets) {
    const int ranks = plan.zero == 0 ? 1 : plan.mesh.data;
    most = std::max(most, bucket.elements.count / ranks);
  }
  const auto places = std::min(offload_places, static_cast<int64_t>(layout.buckets.size()));
  ledger.book("gradients of a bucket", MemoryKind::communication, most * size_bytes(types.grad), places);
  return ledger;
}

int64_t snapshot_bytes(const Plan& plan, int rank) {
  if (!plan.parallel.saves_behind) return 0;
  return 3 * updated_elements(plan, flat_layout_of(plan, rank)) * size_bytes(DType::f32);
}

RankTraffic traffic_of(const Plan& plan, int rank) {
  RankTraffic traffic;
  const int position = plan.mesh.coordinate_of(rank).pipeline;
  const FlatLayout layout = flat_layout_of(plan, rank);
  for (int chunk = 0; chunk < plan.map.chunks(); ++chunk)
    add_tensor(plan, plan.stages[at(plan.map.stage_of(position, chunk))], rank, traffic.tensor);
  add_replicas(plan, layout, rank, traffic.tensor);
  add_data(plan, layout, rank, traffic.data);
  const int64_t bundle = sum_bytes(plan, plan.workload.boundary, rank);
  const auto tensors = static_cast<int64_t>(plan.workload.boundary.size());
  for (const Action& action : plan.program(rank)) {
    if (!is_send(action.kind)) continue;
    traffic.pipeline.bytes += bundle;
    traffic.pipeline.messages += tensors;
  }
  if (const int64_t tied = tied_elements(plan, layout, rank); tied > 0) {
    traffic.pipeline.bytes += tied * size_bytes(plan.parallel.types.grad);
    ++traffic.pipeline.messages;
  }
  return traffic;
}

}  // namespace ptrain
