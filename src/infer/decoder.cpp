#include "src/infer/decoder.h"

#include <cmath>

#include "kernels/ops/activation.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/gemm.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/rope.h"
#include "kernels/ops/scratch.h"
#include "parallel/plan/plan.h"
#include "src/model/host_flat.h"
#include "src/model/workload.h"

namespace ptrain {
namespace {

/// Every weight of the model in one stage, cut over the tensor group.
std::vector<PlacedWeight> place_all(const ModelSpec& spec, const Mesh& mesh, int rank) {
  const Workload workload = workload_of(spec, SequenceParallel::off, 1);
  const Range units{0, spec.L + 2};
  const FlatLayout layout = flat_layout(workload, {{units, {units}}}, mesh, rank);
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

Decoder::Decoder(const ModelSpec& spec, Communicator* tensor, const Context& context, int64_t max_positions,
                 DType dtype)
    : spec_(spec),
      context_(context),
      mesh_{.pipeline = 1, .data = 1, .tensor = tensor == nullptr ? 1 : tensor->size()},
      rank_(tensor == nullptr ? 0 : tensor->rank()),
      group_(tensor, SequenceParallel::off, 1, {}),
      local_(local_sizes(spec, mesh_, rank_)),
      max_positions_(max_positions),
      placed_(place_all(spec, mesh_, rank_)),
      dtype_(dtype) {
  const int64_t scratch = op_scratch_bytes(context.device.kind, {.B = 1,
                                                                 .T = max_positions,
                                                                 .N = max_positions,
                                                                 .C = spec_.C,
                                                                 .F = local_.F,
                                                                 .V = local_.V,
                                                                 .H = local_.H,
                                                                 .K = local_.K,
                                                                 .D = spec_.D,
                                                                 .dtype = dtype});
  const auto grant = [&](const VisitTensor& each) {
    each("parameters", parameters_, {end_of(placed_)}, dtype);
    each("ops", context_.scratch, {scratch}, DType::u8);
    each("cos_sin", cos_sin_, {max_positions, spec_.D / 2, 2}, wide(dtype));
    each("keys", keys_, {spec_.L, max_positions, local_.K * spec_.D}, dtype);
    each("values", values_, {spec_.L, max_positions, local_.K * spec_.D}, dtype);
    each("head h", head_h_, {1, spec_.C}, dtype);
    each("head rstd", head_rstd_, {1}, wide(dtype));
    each("logits", logits_, {1, local_.V}, dtype);
    visit_rows(dims_of(1), one_, each);
  };
  int64_t bytes = 0;
  grant(add_up(bytes));
  arena_ = Arena(bytes, context.device);
  grant(take_from(arena_, ""));
  const auto grant_host = [&](const VisitTensor& each) {
    visit_inputs(1, one_.host, each);
    each("logits", host_logits_, {1, local_.V}, dtype);
  };
  host_ = bind_host(grant_host, context.device);
  logits32_ = OwnedTensor({spec_.V}, DType::f32);
  const OwnedTensor angles(cos_sin_.shape, cos_sin_.dtype);
  fill_rope_table(spec_, angles.view);
  from_host(context_, angles.view, cos_sin_);
  weights_ = bind_weights(placed_, {0, spec_.L + 2}, FlatMemory(parameters_), 0, static_cast<int>(spec_.L));
}

BlockDims Decoder::dims_of(int64_t n) const {
  return block_dims(spec_, mesh_, rank_, 1, n, SequenceParallel::off, 1, dtype_);
}

void Decoder::visit_inputs(int64_t n, Inputs& inputs, const VisitTensor& each) {
  each("ids", inputs.ids, {n}, DType::i32);
  each("positions", inputs.positions, {n}, DType::i32);
  each("length", inputs.length, {1}, DType::i32);
}

void Decoder::visit_rows(const BlockDims& dims, Rows& rows, const VisitTensor& each) {
  visit_inputs(dims.N, rows.input, each);
  each("document_start", rows.document_start, {dims.N}, DType::i32);
  each("x", rows.x, {dims.N, dims.C}, dims.dtype);
  each("h", rows.h, {dims.N, dims.C}, dims.dtype);
  each("branch", rows.branch, {dims.N, dims.C}, dims.dtype);
  each("rstd", rows.rstd, {dims.N}, wide(dims.dtype));
  each("qkv", rows.qkv, {dims.N, dims.qkv_columns()}, dims.dtype);
  each("attention", rows.attention, {dims.N, dims.local.H * dims.D}, dims.dtype);
  each("gate_up", rows.gate_up, {dims.N, 2 * dims.local.F}, dims.dtype);
  each("act", rows.act, {dims.N, dims.local.F}, dims.dtype);
  each("lse", rows.lse, {1, dims.local.H, dims.N}, wide(dims.dtype));
}

Decoder::Rows& Decoder::rows_for(int64_t n) {
  if (n == 1) return one_;
  int64_t bytes = 0;
  visit_rows(dims_of(n), prompt_, add_up(bytes));
  prompt_memory_ =
      OwnedTensor({bytes}, DType::u8, context_.device);  // once a prompt; later steps allocate nothing
  bind_table([&](const VisitTensor& each) { visit_rows(dims_of(n), prompt_, each); },
             prompt_memory_.view.data, context_.device);
  prompt_host_ =
      bind_host([&](const VisitTensor& each) { visit_inputs(n, prompt_.host, each); }, context_.device);
  return prompt_;
}

void Decoder::attend(Rows& rows, int64_t n, int layer) {
  const int64_t kv_columns = local_.K * spec_.D;
  const Tensor q = rows.qkv.column_range(0, local_.H * spec_.D);
  const Tensor k = rows.qkv.column_range(local_.H * spec_.D, kv_columns);
  const Tensor v = rows.qkv.column_range(local_.H * spec_.D + kv_columns, kv_columns);
  rope(context_, rows.qkv.column_range(0, (local_.H + local_.K) * spec_.D), rows.input.positions, cos_sin_,
       spec_.D, Rotation::forward);
  const Tensor keys = keys_.row_range(layer * max_positions_, max_positions_);
  const Tensor values = values_.row_range(layer * max_positions_, max_positions_);
  scatter_rows(context_, k, rows.input.positions, keys);
  scatter_rows(context_, v, rows.input.positions, values);
  const AttentionDims dims{.B = 1,
                           .T = n,
                           .H = local_.H,
                           .K = local_.K,
                           .D = spec_.D,
                           .group = spec_.H / spec_.K,
                           .first_head = local_.first_head,
                           .scale = 1.0 / std::sqrt(static_cast<double>(spec_.D)),
                           .window = layer >= spec_.first_window_layer ? spec_.window : 0,
                           .has_documents = false};
  if (n > 1) {
    attention_forward(context_, dims, q, k, v, rows.document_start, rows.attention, rows.lse);
    return;
  }
  const Shape cache{1, max_positions_, kv_columns};
  attention_decode(context_, dims, q, keys.reshaped(cache), values.reshaped(cache), rows.input.length,
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

void Decoder::run(Rows& rows, int64_t n) {
  transfer(context_, rows.host.ids, rows.input.ids);
  transfer(context_, rows.host.positions, rows.input.positions);
  transfer(context_, rows.host.length, rows.input.length);
  embedding_forward(context_, rows.input.ids, weights_.embedding, local_.first_id, rows.x);
  group_.leave(rows.x);
  for (int layer = 0; layer < spec_.L; ++layer) block(rows, n, layer);
  rmsnorm_forward(context_, rows.x.row_range(n - 1, 1), {}, weights_.final_norm, {}, head_h_, head_rstd_,
                  spec_.norm_eps);
  linear_forward(context_, head_h_, weights_.head, {}, logits_);
  transfer(context_, logits_, host_logits_);
}

/// A GPU runs a token's thousand small kernels as one graph. The first token is enqueued piece by piece,
/// since libraries choose their algorithms then; with several ranks their communication stays outside of
/// graphs.
void Decoder::run_one() {
  if (context_.stream == nullptr || group_.size() > 1 || one_runs_++ == 0) return run(one_, 1);
  if (!one_graph_) one_graph_.capture(*context_.stream, [&] { run(one_, 1); });
  one_graph_.launch(*context_.stream);
}

std::span<const float> Decoder::whole_logits() {
  if (group_.size() == 1 && dtype_ == DType::f32) return host_logits_.span<float>();
  Context host = host_context(context_);
  if (group_.size() == 1) {
    copy(host, host_logits_.reshaped({spec_.V}), logits32_.view);
    return logits32_.view.span<float>();
  }
  std::vector<int64_t> counts;
  for (int part = 0; part < group_.size(); ++part)
    counts.push_back(part_of(spec_.V, part, group_.size()).count);
  const OwnedTensor mine({local_.V}, DType::f32);
  copy(host, host_logits_.reshaped({local_.V}), mine.view);
  group_.comm()->all_gather_varied(mine.view, logits32_.view, counts);
  return logits32_.view.span<float>();
}

std::span<const float> Decoder::forward(std::span<const int32_t> ids) {
  const auto n = static_cast<int64_t>(ids.size());
  check(n > 0 && (n == 1 || position_ == 0), "{} tokens behind {} cached ones", n, position_);
  check(position_ + n <= max_positions_, ExitCode::input,
        "{} tokens do not fit the {} positions that are left", n, max_positions_ - position_);
  Rows& rows = rows_for(n);
  for (int64_t i = 0; i < n; ++i) {
    rows.host.ids.as<int32_t>()[i] = ids[static_cast<size_t>(i)];
    rows.host.positions.as<int32_t>()[i] = static_cast<int32_t>(position_ + i);
  }
  *rows.host.length.as<int32_t>() = static_cast<int32_t>(position_ + n);
  if (n == 1) {
    run_one();
  } else {
    run(rows, n);
  }
  position_ += n;
  if (context_.stream != nullptr) context_.stream->synchronize();
  return whole_logits();
}

}  // namespace ptrain
