#include "src/infer/decoder.h"

#include <cmath>

#include "kernels/ops/activation.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"
#include "parallel/plan/plan.h"
#include "src/model/workload.h"

namespace ptrain {
namespace {

/// Every weight of the model in one stage, cut over the tensor group.
std::vector<PlacedWeight> place_all(const ModelSpec& spec, const Mesh& mesh, int rank) {
  const Workload workload = workload_of(spec, SequenceParallel::off, 1);
  const Range units{0, spec.L + 2};
  const FlatLayout layout = flat_layout(workload, units, {units}, mesh, rank);
  std::vector<PlacedWeight> placed;
  std::vector<WeightSpec> table = weights_of(spec, SequenceParallel::off, false);
  for (size_t i = 0; i < layout.pieces.size(); ++i) {
    placed.push_back({.spec = std::move(table[i]),
                      .box = layout.pieces[i].box,
                      .offset = layout.pieces[i].elements.begin});
  }
  return placed;
}

int64_t end_of(const std::vector<PlacedWeight>& placed) {
  return placed.back().offset + placed.back().box.numel();
}

}  // namespace

Decoder::Decoder(const ModelSpec& spec, Communicator* tensor, const Context& context, int64_t max_positions)
    : spec_(spec),
      context_(context),
      mesh_{.pipeline = 1, .data = 1, .tensor = tensor == nullptr ? 1 : tensor->size()},
      rank_(tensor == nullptr ? 0 : tensor->rank()),
      group_(tensor, SequenceParallel::off, {}),
      local_(local_sizes(spec, mesh_, rank_)),
      max_positions_(max_positions),
      placed_(place_all(spec, mesh_, rank_)) {
  const BlockDims dims = block_dims(spec_, mesh_, rank_, 1, 1, SequenceParallel::off, DType::f32);
  const auto grant = [&](const VisitTensor& each) {
    each("parameters", parameters_, {end_of(placed_)}, DType::f32);
    each("cos_sin", cos_sin_, {max_positions, spec_.D / 2, 2}, DType::f32);
    each("keys", keys_, {spec_.L, max_positions, local_.K * spec_.D}, DType::f32);
    each("values", values_, {spec_.L, max_positions, local_.K * spec_.D}, DType::f32);
    each("head h", head_h_, {1, spec_.C}, DType::f32);
    each("head rstd", head_rstd_, {1}, DType::f32);
    each("logits", logits_, {1, local_.V}, DType::f32);
    each("all logits", all_logits_, {1, spec_.V}, DType::f32);
    each("length", length_, {1}, DType::i32);
    visit_rows(dims, one_, each);
  };
  int64_t bytes = 0;
  grant(add_up(bytes));
  arena_ = Arena(bytes, context.device);
  grant(take_from(arena_, ""));
  fill_rope_table(spec_, cos_sin_);
  weights_ = bind_weights(placed_, parameters_, 0, static_cast<int>(spec_.L));
}

void Decoder::visit_rows(const BlockDims& dims, Rows& rows, const VisitTensor& each) {
  each("ids", rows.ids, {dims.N}, DType::i32);
  each("positions", rows.positions, {dims.N}, DType::i32);
  each("document_start", rows.document_start, {dims.N}, DType::i32);
  each("x", rows.x, {dims.N, dims.C}, DType::f32);
  each("h", rows.h, {dims.N, dims.C}, DType::f32);
  each("branch", rows.branch, {dims.N, dims.C}, DType::f32);
  each("rstd", rows.rstd, {dims.N}, DType::f32);
  each("qkv", rows.qkv, {dims.N, dims.qkv_columns()}, DType::f32);
  each("attention", rows.attention, {dims.N, dims.local.H * dims.D}, DType::f32);
  each("gate_up", rows.gate_up, {dims.N, 2 * dims.local.F}, DType::f32);
  each("act", rows.act, {dims.N, dims.local.F}, DType::f32);
  each("lse", rows.lse, {1, dims.local.H, dims.N}, DType::f32);
}

Decoder::Rows& Decoder::rows_for(int64_t n) {
  if (n == 1) return one_;
  const BlockDims dims = block_dims(spec_, mesh_, rank_, 1, n, SequenceParallel::off, DType::f32);
  int64_t bytes = 0;
  visit_rows(dims, prompt_, add_up(bytes));
  prompt_memory_ = OwnedTensor({bytes}, DType::u8);  // once a prompt; the steps after it allocate nothing
  auto* next = static_cast<char*>(prompt_memory_.view.data);
  visit_rows(dims, prompt_, [&](std::string_view, Tensor& tensor, Shape shape, DType dtype) {
    tensor = Tensor(next, shape, dtype, context_.device);
    next += arena_bytes(tensor.bytes());
  });
  return prompt_;
}

void Decoder::attend(Rows& rows, int64_t n, int layer) {
  const int64_t kv_columns = local_.K * spec_.D;
  const Tensor q = rows.qkv.column_range(0, local_.H * spec_.D);
  const Tensor k = rows.qkv.column_range(local_.H * spec_.D, kv_columns);
  const Tensor v = rows.qkv.column_range(local_.H * spec_.D + kv_columns, kv_columns);
  rope(context_, rows.qkv.column_range(0, (local_.H + local_.K) * spec_.D), rows.positions, cos_sin_, spec_.D,
       Rotation::forward);
  copy(context_, k, keys_.row_range(layer * max_positions_ + position_, n));
  copy(context_, v, values_.row_range(layer * max_positions_ + position_, n));
  const AttentionDims dims{.B = 1,
                           .T = n,
                           .H = local_.H,
                           .K = local_.K,
                           .D = spec_.D,
                           .group = spec_.H / spec_.K,
                           .first_head = local_.first_head,
                           .scale = 1.0 / std::sqrt(static_cast<double>(spec_.D)),
                           .window = layer >= spec_.first_window_layer ? spec_.window : 0};
  if (n > 1) {
    attention_forward(context_, dims, q, k, v, rows.document_start, rows.attention, rows.lse);
    return;
  }
  length_.as<int32_t>()[0] = static_cast<int32_t>(position_ + 1);
  const Shape cache{1, max_positions_, kv_columns};
  attention_decode(context_, dims, q, keys_.row_range(layer * max_positions_, max_positions_).reshaped(cache),
                   values_.row_range(layer * max_positions_, max_positions_).reshaped(cache), length_,
                   rows.attention);
}

void Decoder::block(Rows& rows, int64_t n, int layer) {
  const BlockWeights& w = weights_.blocks[static_cast<size_t>(layer)];
  rmsnorm_forward(context_, rows.x, {}, w.norm_1, {}, rows.h, rows.rstd, spec_.norm_eps);
  linear_forward(context_, rows.h, w.qkv, w.qkv_bias, rows.qkv);
  attend(rows, n, layer);
  linear_forward(context_, rows.attention, w.o, {}, rows.branch);
  group_.leave(rows.branch);
  if (w.o_bias) add_bias(context_, rows.branch, w.o_bias);
  rmsnorm_forward(context_, rows.x, rows.branch, w.norm_2, rows.x, rows.h, rows.rstd, spec_.norm_eps);
  linear_forward(context_, rows.h, w.gate_up, w.gate_up_bias, rows.gate_up);
  swiglu_forward(context_, rows.gate_up, rows.act);
  linear_forward(context_, rows.act, w.down, {}, rows.branch);
  group_.leave(rows.branch);
  if (w.down_bias) add_bias(context_, rows.branch, w.down_bias);
  add(context_, rows.branch, rows.x);
}

std::span<const float> Decoder::logits_of(Tensor last_row) {
  rmsnorm_forward(context_, last_row, {}, weights_.final_norm, {}, head_h_, head_rstd_, spec_.norm_eps);
  linear_forward(context_, head_h_, weights_.head, {}, logits_);
  if (group_.size() == 1) return logits_.span<float>();
  std::vector<int64_t> counts;
  for (int part = 0; part < group_.size(); ++part)
    counts.push_back(part_of(spec_.V, part, group_.size()).count);
  group_.comm()->all_gather_varied(logits_, all_logits_, counts);
  return all_logits_.span<float>();
}

std::span<const float> Decoder::forward(std::span<const int32_t> ids) {
  const auto n = static_cast<int64_t>(ids.size());
  check(n > 0 && (n == 1 || position_ == 0), "{} tokens behind {} cached ones", n, position_);
  check(position_ + n <= max_positions_, ExitCode::input,
        "{} tokens do not fit the {} positions that are left", n, max_positions_ - position_);
  Rows& rows = rows_for(n);
  for (int64_t i = 0; i < n; ++i) {
    rows.ids.as<int32_t>()[i] = ids[static_cast<size_t>(i)];
    rows.positions.as<int32_t>()[i] = static_cast<int32_t>(position_ + i);
  }
  embedding_forward(context_, rows.ids, weights_.embedding, local_.first_id, rows.x);
  group_.leave(rows.x);
  for (int layer = 0; layer < spec_.L; ++layer) block(rows, n, layer);
  position_ += n;
  return logits_of(rows.x.row_range(n - 1, 1));
}

}  // namespace ptrain
