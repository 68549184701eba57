#include "src/model/activations.h"

#include <algorithm>

namespace ptrain {

BlockDims block_dims(const ModelSpec& spec, const Mesh& mesh, int rank, int64_t B, int64_t T,
                     SequenceParallel sequence_parallel, int strips, DType dtype) {
  BlockDims dims{.B = B,
                 .T = T,
                 .N = B * T,
                 .rows = B * T,
                 .local_rows = B * T,
                 .C = spec.C,
                 .D = spec.D,
                 .local = local_sizes(spec, mesh, rank),
                 .tensor = mesh.tensor,
                 .is_sequence_parallel = mesh.tensor > 1 && sequence_parallel == SequenceParallel::on,
                 .dtype = dtype};
  if (dims.is_sequence_parallel) {
    dims.local_rows = strips * strip_share(dims.N, mesh.tensor, strips);
    dims.rows = dims.local_rows * mesh.tensor;
  }
  return dims;
}

void visit(const BlockDims& dims, MicroInput& input, const VisitTensor& each) {
  each("ids", input.ids, {dims.rows}, DType::i32);
  each("positions", input.positions, {dims.rows}, DType::i32);
  each("document_start", input.document_start, {dims.N}, DType::i32);
  each("supervised", input.supervised, {dims.rows}, DType::i32);
  each("targets", input.targets, {dims.rows}, DType::i32);
}

namespace {

constexpr BlockActsRow rows_of_block[] = {
    {"h_1", &BlockActs::h_1, Recompute::selective},    {"rstd_1", &BlockActs::rstd_1, Recompute::full},
    {"qkv", &BlockActs::qkv, Recompute::full},         {"attention", &BlockActs::attention, Recompute::full},
    {"lse", &BlockActs::lse, Recompute::full},         {"x_2", &BlockActs::x_2, Recompute::full},
    {"h_2", &BlockActs::h_2, Recompute::selective},    {"rstd_2", &BlockActs::rstd_2, Recompute::full},
    {"gate_up", &BlockActs::gate_up, Recompute::full}, {"act", &BlockActs::act, Recompute::none, true},
};

Shape shape_of(const BlockDims& dims, Tensor BlockActs::*tensor) {
  if (tensor == &BlockActs::rstd_1 || tensor == &BlockActs::rstd_2) return {dims.local_rows};
  if (tensor == &BlockActs::qkv) return {dims.rows, dims.qkv_columns()};
  if (tensor == &BlockActs::attention) return {dims.rows, dims.local.H * dims.D};
  if (tensor == &BlockActs::lse) return {dims.B, dims.local.H, dims.T};
  if (tensor == &BlockActs::gate_up) return {dims.rows, 2 * dims.local.F};
  if (tensor == &BlockActs::act) return {dims.rows, dims.local.F};
  return {dims.local_rows, dims.C};
}

DType dtype_in(const BlockDims& dims, Tensor BlockActs::*tensor) {
  const bool is_statistic =
      tensor == &BlockActs::rstd_1 || tensor == &BlockActs::rstd_2 || tensor == &BlockActs::lse;
  return is_statistic ? wide(dims.dtype) : dims.dtype;
}

}  // namespace

std::span<const BlockActsRow> block_acts_table() {
  return rows_of_block;
}

void visit(const BlockDims& dims, const KeepRules& rules, SlotActs& acts, const VisitTensor& each) {
  acts.x.resize(rules.blocks.size() + 1);
  acts.blocks.resize(rules.blocks.size());
  visit(dims, acts.input, each);
  const Shape local{dims.local_rows, dims.C};
  for (Tensor& x : acts.x) each("x", x, local, dims.dtype);
  for (size_t block = 0; block < rules.blocks.size(); ++block) {
    for (const BlockActsRow& row : rows_of_block) {
      const RowTensor rule{.made_again = row.made_again, .is_for_halves = row.is_for_halves};
      if (is_kept(rule, rules.blocks[block], rules.has_halves))
        each(row.name, acts.blocks[block].*row.tensor, shape_of(dims, row.tensor),
             dtype_in(dims, row.tensor));
    }
  }
  each("d", acts.d, local, dims.dtype);
}

void share(Recompute recompute, const BlockActs& again, BlockActs& acts) {
  for (const BlockActsRow& row : rows_of_block) {
    if (is_made_again({.made_again = row.made_again}, recompute)) acts.*row.tensor = again.*row.tensor;
  }
}

void visit(const BlockDims& dims, Recompute recompute, StageScratch& scratch, const VisitTensor& each) {
  for (const BlockActsRow& row : rows_of_block) {
    if (is_made_again({.made_again = row.made_again}, recompute))
      each(row.name, scratch.again.*row.tensor, shape_of(dims, row.tensor), dtype_in(dims, row.tensor));
  }
  if (dims.is_sequence_parallel) {
    each("whole", scratch.whole, {dims.rows, dims.C}, dims.dtype);
    each("partial", scratch.partial, {dims.rows, dims.C}, dims.dtype);
  }
  each("branch", scratch.branch, {dims.local_rows, dims.C}, dims.dtype);
  each("act", scratch.act, {dims.rows, dims.local.F}, dims.dtype);
  each("dact", scratch.dact, {dims.rows, dims.local.F}, dims.dtype);
  each("dqkv", scratch.dqkv, {dims.rows, dims.qkv_columns()}, dims.dtype);
  each("dattention", scratch.dattention, {dims.rows, dims.local.H * dims.D}, dims.dtype);
  each("delta", scratch.delta, {dims.B, dims.local.H, dims.T}, wide(dims.dtype));
}

void visit(const BlockDims& dims, int64_t losses, HeadScratch& scratch, const VisitTensor& each) {
  const int64_t chunk = std::min(dims.rows, head_chunk_rows);
  each("h", scratch.h, {dims.local_rows, dims.C}, dims.dtype);
  each("rstd", scratch.rstd, {dims.local_rows}, wide(dims.dtype));
  if (dims.is_sequence_parallel) each("whole", scratch.whole, {dims.rows, dims.C}, dims.dtype);
  each("selected", scratch.selected, {chunk, dims.C}, dims.dtype);
  each("logits", scratch.logits, {chunk, dims.local.V}, dims.dtype);
  each("statistics", scratch.statistics, {chunk, 3}, wide(dims.dtype));
  each("parts", scratch.parts, {dims.tensor, chunk, 3}, wide(dims.dtype));
  each("loss", scratch.loss, {losses}, DType::f64);
}

VisitTensor take_from(Arena& arena, std::string prefix) {
  return
      [&arena, prefix = std::move(prefix)](std::string_view name, Tensor& tensor, Shape shape, DType dtype) {
        tensor = arena.take(prefix + std::string(name), shape, dtype);
      };
}

void bind_table(const VisitTable& table, void* data, Device device) {
  auto* next = static_cast<char*>(data);
  table([&](std::string_view, Tensor& tensor, Shape shape, DType dtype) {
    tensor = Tensor(next, shape, dtype, device);
    next += arena_bytes(tensor.bytes());
  });
}

Buffer bind_host(const VisitTable& table, Device device) {
  int64_t bytes = 0;
  table(add_up(bytes));
  Buffer buffer = Buffer::staging(bytes, device);
  bind_table(table, buffer.data(), {});
  return buffer;
}

VisitTensor add_up(int64_t& bytes) {
  return [&bytes](std::string_view, Tensor&, Shape shape, DType dtype) {
    bytes += arena_bytes(shape.numel() * size_bytes(dtype));
  };
}

}  // namespace ptrain
