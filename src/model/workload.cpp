#include "src/model/workload.h"

#include "src/model/activations.h"

namespace ptrain {
namespace {

constexpr auto all_rows = Rows::all;
constexpr auto share_of_rows = Rows::share;

/// The tables here say the same as visit() in activations.cpp; a test compares them with what a stage takes.
class WorkloadMaker {
 public:
  WorkloadMaker(const ModelSpec& spec, bool is_sequence_parallel, bool has_tied_copy, DType dtype)
      : spec_(spec),
        is_sequence_parallel_(is_sequence_parallel),
        has_tied_copy_(has_tied_copy),
        dtype_(dtype) {}

  Workload make() const {
    Workload workload;
    workload.name = fmt::format("{} {}L {}C", spec_.family, spec_.L, spec_.C);
    workload.heads = spec_.H;
    workload.model_flops_per_token = 6.0 * static_cast<double>(matmul_parameters(spec_));
    workload.units.push_back(embedding());
    for (int64_t block = 0; block < spec_.L; ++block) workload.units.push_back(this->block(block));
    workload.units.push_back(head());
    if (has_tied_copy_) workload.units.push_back({.name = "tied table", .kind = UnitKind::table});
    // In the order and the grants of Stage.
    workload.inputs = {{.name = "ids", .columns = 1, .dtype = DType::i32},
                       {.name = "positions", .columns = 1, .dtype = DType::i32},
                       {.name = "document starts", .columns = 1, .dtype = DType::i32, .rows = Rows::exact},
                       {.name = "supervised rows", .columns = 1, .dtype = DType::i32},
                       {.name = "targets", .columns = 1, .dtype = DType::i32}};
    workload.tables.push_back(
        {.name = "angles", .columns = spec_.D, .dtype = wide(dtype_), .rows = Rows::time});
    workload.boundary.push_back({.name = "x", .columns = spec_.C, .dtype = dtype_, .rows = share_of_rows});
    const auto parallel = is_sequence_parallel_ ? SequenceParallel::on : SequenceParallel::off;
    for (WeightSpec& weight : weights_of(spec_, parallel, has_tied_copy_)) {
      workload.units[static_cast<size_t>(weight.unit)].pieces.push_back(
          {.piece = std::move(weight.piece), .fusion = weight.fusion, .is_tied_copy = weight.is_tied_copy});
    }
    return workload;
  }

 private:
  Unit embedding() const {
    Unit unit{.name = "embedding", .kind = UnitKind::embedding};
    unit.collectives = {leave("embedding"), of_weights(enter_backward("embedding"))};
    drop_empty(unit.collectives);
    return unit;
  }

  Unit block(int64_t index) const {
    const int64_t C = spec_.C, D = spec_.D, H = spec_.H, K = spec_.K, F = spec_.F;
    const Split q_heads{.dim = 0, .unit = D};
    const Split kv_heads{.dim = 0, .unit = D, .group = H / K};
    Unit unit{.name = fmt::format("block {}", index), .kind = UnitKind::block};
    const auto products = static_cast<double>(C * D * (2 * H + 2 * K) + 3 * C * F);
    unit.forward_flops = 2 * products;
    unit.backward_flops = 4 * products;
    unit.again_flops = unit.forward_flops - 2 * static_cast<double>(C * F);  // all but the down-projection
    const auto add = [&](std::vector<RowTensor>& to, const char* name, int64_t columns, Rows rows,
                         std::optional<Split> split = std::nullopt) {
      to.push_back({.name = name, .columns = columns, .dtype = dtype_, .rows = rows, .split = split});
    };
    const auto add_statistic = [&](std::vector<RowTensor>& to, const char* name, int64_t columns, Rows rows,
                                   std::optional<Split> split = std::nullopt) {
      to.push_back({.name = name, .columns = columns, .dtype = wide(dtype_), .rows = rows, .split = split});
    };
    // q, k and v lie side by side in one tensor of all their columns.
    const auto add_qkv = [&](std::vector<RowTensor>& to, const char* q, const char* k, const char* v) {
      add(to, q, H * D, all_rows, q_heads);
      to.back().joins_next = true;
      add(to, k, K * D, all_rows, kv_heads);
      to.back().joins_next = true;
      add(to, v, K * D, all_rows, kv_heads);
    };
    add(unit.kept, "x", C, share_of_rows);
    add(unit.kept, "h_1", C, share_of_rows);
    add_statistic(unit.kept, "rstd_1", 1, share_of_rows);
    add_qkv(unit.kept, "q", "k", "v");
    add(unit.kept, "attention", H * D, all_rows, q_heads);
    add_statistic(unit.kept, "lse", H, Rows::exact, Split{.dim = 0});
    add(unit.kept, "x_2", C, share_of_rows);
    add(unit.kept, "h_2", C, share_of_rows);
    add_statistic(unit.kept, "rstd_2", 1, share_of_rows);
    add(unit.kept, "gate", F, all_rows, Split{.dim = 0});
    unit.kept.back().joins_next = true;
    add(unit.kept, "up", F, all_rows, Split{.dim = 0});
    add(unit.kept, "act", F, all_rows, Split{.dim = 0});
    // The same table as the run's; q, k, v and gate, up are one tensor there.
    size_t next = 1;  // behind x
    for (const BlockActsRow& row : block_acts_table()) {
      for (bool is_joined = true; is_joined; ++next) {
        is_joined = unit.kept[next].joins_next;
        unit.kept[next].made_again = row.made_again;
        unit.kept[next].is_for_halves = row.is_for_halves;
      }
    }
    if (is_sequence_parallel_) {
      add(unit.scratch, "whole", C, all_rows);
      add(unit.scratch, "partial", C, all_rows);
    }
    add(unit.scratch, "branch", C, share_of_rows);
    add(unit.scratch, "act", F, all_rows, Split{.dim = 0});
    add(unit.scratch, "dact", F, all_rows, Split{.dim = 0});
    add_qkv(unit.scratch, "dq", "dk", "dv");
    add(unit.scratch, "dattention", H * D, all_rows, q_heads);
    add_statistic(unit.scratch, "delta", H, Rows::exact, Split{.dim = 0});
    // In the order in which the block starts them. Backward: what it sums, or gathers for a gradient of
    // weights, travels beside the product of another weight.
    const auto flops = [](int64_t weights) { return 2 * static_cast<double>(weights); };
    const double qkv = flops(C * D * (H + 2 * K)), o = flops(C * D * H), gate_up = flops(2 * C * F),
                 down = flops(C * F);
    unit.collectives = {again(cut_with(qkv, enter("attention in"))),
                        again(cut_with(o, leave("attention out"))),
                        again(cut_with(gate_up, enter("mlp in"))),
                        cut_with(down, leave("mlp out")),
                        cut_with(down, enter_backward("mlp out")),
                        of_weights(enter_backward("mlp out"), true),
                        ahead(beside(down, of_weights(enter_backward("mlp in")))),
                        beside(gate_up, cut_with(gate_up, leave_backward("mlp in"))),
                        cut_with(o, enter_backward("attention out")),
                        beside(gate_up, of_weights(enter_backward("attention out"), true)),
                        ahead(beside(o, of_weights(enter_backward("attention in")))),
                        beside(qkv, cut_with(qkv, leave_backward("attention in")))};
    drop_empty(unit.collectives);
    return unit;
  }

  Unit head() const {
    Unit unit{.name = "head", .kind = UnitKind::head};
    // The head's backward is part of its forward: see head.h.
    unit.forward_flops = 6 * static_cast<double>(spec_.V * spec_.C);
    const auto chunk = [&](const char* name, int64_t columns, DType dtype,
                           std::optional<Split> split = std::nullopt) {
      unit.scratch.push_back(
          {.name = name, .columns = columns, .dtype = dtype, .split = split, .max_rows = head_chunk_rows});
    };
    unit.scratch.push_back({.name = "h", .columns = spec_.C, .dtype = dtype_, .rows = share_of_rows});
    unit.scratch.push_back({.name = "rstd", .columns = 1, .dtype = wide(dtype_), .rows = share_of_rows});
    if (is_sequence_parallel_) unit.scratch.push_back({.name = "whole", .columns = spec_.C, .dtype = dtype_});
    chunk("selected", spec_.C, dtype_);
    chunk("logits", spec_.V, dtype_, Split{.dim = 0});
    chunk("statistics", 3, wide(dtype_));
    chunk("statistics of all parts", 3, wide(dtype_));
    unit.scratch.back().is_from_each_rank = true;
    unit.scratch.push_back({.name = "loss", .columns = 1, .dtype = DType::f64, .max_rows = 1});
    unit.collectives = {enter("head in"), leave_backward("head in")};
    drop_empty(unit.collectives);
    return unit;
  }

  // The conjugate pairs of TensorGroup. Without sequence parallelism entering is free, leaving is an
  // all-reduce.
  UnitCollective make_collective(const char* name, CollectiveKind kind, bool is_backward) const {
    return {.name = name, .kind = kind, .is_backward = is_backward, .columns = spec_.C, .dtype = dtype_};
  }
  UnitCollective enter(const char* name) const { return gather(name, false); }
  UnitCollective enter_backward(const char* name) const { return gather(name, true); }
  UnitCollective leave(const char* name) const { return sum(name, false); }
  UnitCollective leave_backward(const char* name) const { return sum(name, true); }
  UnitCollective gather(const char* name, bool is_backward) const {
    UnitCollective collective = make_collective(name, CollectiveKind::all_gather, is_backward);
    if (!is_sequence_parallel_) collective.columns = 0;
    return collective;
  }
  UnitCollective sum(const char* name, bool is_backward) const {
    return make_collective(
        name, is_sequence_parallel_ ? CollectiveKind::reduce_scatter : CollectiveKind::all_reduce,
        is_backward);
  }
  static UnitCollective again(UnitCollective collective) {
    collective.is_made_again = true;
    return collective;
  }
  static UnitCollective of_weights(UnitCollective collective, bool is_for_halves = false) {
    collective.is_of_weights = true;
    collective.is_for_halves = is_for_halves;
    return collective;
  }
  static UnitCollective ahead(UnitCollective collective) {
    collective.is_ahead = true;
    return collective;
  }
  static UnitCollective cut_with(double product_flops, UnitCollective collective) {
    collective.product_flops = product_flops;
    return collective;
  }
  static UnitCollective beside(double flops, UnitCollective collective) {
    collective.beside_flops = flops;
    return collective;
  }
  static void drop_empty(std::vector<UnitCollective>& collectives) {
    std::erase_if(collectives, [](const UnitCollective& collective) { return collective.columns == 0; });
  }

  const ModelSpec& spec_;
  bool is_sequence_parallel_;
  bool has_tied_copy_;
  DType dtype_;
};

}  // namespace

Workload workload_of(const ModelSpec& spec, SequenceParallel sequence_parallel, int stages, DType dtype) {
  return WorkloadMaker(spec, sequence_parallel == SequenceParallel::on, spec.is_tied && stages > 1, dtype)
      .make();
}

}  // namespace ptrain
