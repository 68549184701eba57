#include "src/model/activations.h"

#include <algorithm>

namespace ptrain {

BlockDims block_dims(const ModelSpec& spec, const Mesh& mesh, int rank, int64_t B, int64_t T,
                     SequenceParallel sequence_parallel, DType dtype) {
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
    dims.local_rows = (dims.N + mesh.tensor - 1) / mesh.tensor;
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

void visit(const BlockDims& dims, int blocks, SlotActs& acts, const VisitTensor& each) {
  acts.x.resize(static_cast<size_t>(blocks) + 1);
  acts.blocks.resize(static_cast<size_t>(blocks));
  visit(dims, acts.input, each);
  const Shape local{dims.local_rows, dims.C};
  for (Tensor& x : acts.x) each("x", x, local, dims.dtype);
  for (BlockActs& block : acts.blocks) {
    each("h_1", block.h_1, local, dims.dtype);
    each("rstd_1", block.rstd_1, {dims.local_rows}, wide(dims.dtype));
    each("qkv", block.qkv, {dims.rows, dims.qkv_columns()}, dims.dtype);
    each("attention", block.attention, {dims.rows, dims.local.H * dims.D}, dims.dtype);
    each("lse", block.lse, {dims.B, dims.local.H, dims.T}, wide(dims.dtype));
    each("x_2", block.x_2, local, dims.dtype);
    each("h_2", block.h_2, local, dims.dtype);
    each("rstd_2", block.rstd_2, {dims.local_rows}, wide(dims.dtype));
    each("gate_up", block.gate_up, {dims.rows, 2 * dims.local.F}, dims.dtype);
  }
  each("d", acts.d, local, dims.dtype);
}

void visit(const BlockDims& dims, StageScratch& scratch, const VisitTensor& each) {
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

void visit(const BlockDims& dims, HeadScratch& scratch, const VisitTensor& each) {
  const int64_t chunk = std::min(dims.rows, head_chunk_rows);
  each("h", scratch.h, {dims.local_rows, dims.C}, dims.dtype);
  each("rstd", scratch.rstd, {dims.local_rows}, wide(dims.dtype));
  if (dims.is_sequence_parallel) each("whole", scratch.whole, {dims.rows, dims.C}, dims.dtype);
  each("selected", scratch.selected, {chunk, dims.C}, dims.dtype);
  each("logits", scratch.logits, {chunk, dims.local.V}, dims.dtype);
  each("statistics", scratch.statistics, {chunk, 3}, wide(dims.dtype));
  each("parts", scratch.parts, {dims.tensor, chunk, 3}, wide(dims.dtype));
  each("loss", scratch.loss, {1}, DType::f64);
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
