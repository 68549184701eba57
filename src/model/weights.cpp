#include "src/model/weights.h"

namespace ptrain {
namespace {

/// Appends the weights of one block; HF names as Llama, Mistral and Qwen2 share them.
void add_block(std::vector<WeightSpec>& table, const ModelSpec& spec, int block, bool is_sequence_parallel) {
  const std::string prefix = fmt::format("model.layers.{}.", block);
  const int unit = block + 1;
  const int fusions = 4 * unit;  // four numbers a block: qkv, its bias, gate-up, its bias
  const Layout replicated{.splits = {}, .has_partial_gradients = is_sequence_parallel};
  const Layout q_heads{.splits = {{.dim = 0, .unit = spec.D}}};
  const Layout kv_heads{.splits = {{.dim = 0, .unit = spec.D, .group = spec.H / spec.K}}};
  const Layout rows{.splits = {{.dim = 0}}};
  const auto add = [&](std::string name, Role role, Shape shape, Layout layout, int fusion, Init init) {
    table.push_back({.piece = {.name = prefix + std::move(name), .shape = shape, .layout = std::move(layout)},
                     .role = role,
                     .unit = unit,
                     .fusion = fusion,
                     .init = init,
                     .decays = shape.dims() >= 2});
  };
  add("input_layernorm.weight", Role::norm_1, {spec.C}, replicated, 0, Init::ones);
  add("self_attn.q_proj.weight", Role::q, {spec.H * spec.D, spec.C}, q_heads, fusions, Init::normal);
  add("self_attn.k_proj.weight", Role::k, {spec.K * spec.D, spec.C}, kv_heads, fusions, Init::normal);
  add("self_attn.v_proj.weight", Role::v, {spec.K * spec.D, spec.C}, kv_heads, fusions, Init::normal);
  if (spec.has_qkv_bias) {
    add("self_attn.q_proj.bias", Role::q_bias, {spec.H * spec.D}, q_heads, fusions + 1, Init::zeros);
    add("self_attn.k_proj.bias", Role::k_bias, {spec.K * spec.D}, kv_heads, fusions + 1, Init::zeros);
    add("self_attn.v_proj.bias", Role::v_bias, {spec.K * spec.D}, kv_heads, fusions + 1, Init::zeros);
  }
  add("self_attn.o_proj.weight", Role::o, {spec.C, spec.H * spec.D}, {.splits = {{.dim = 1, .unit = spec.D}}},
      0, Init::normal);
  if (spec.has_attention_out_bias)
    add("self_attn.o_proj.bias", Role::o_bias, {spec.C}, replicated, 0, Init::zeros);
  add("post_attention_layernorm.weight", Role::norm_2, {spec.C}, replicated, 0, Init::ones);
  add("mlp.gate_proj.weight", Role::gate, {spec.F, spec.C}, rows, fusions + 2, Init::normal);
  add("mlp.up_proj.weight", Role::up, {spec.F, spec.C}, rows, fusions + 2, Init::normal);
  if (spec.has_mlp_bias) {
    add("mlp.gate_proj.bias", Role::gate_bias, {spec.F}, rows, fusions + 3, Init::zeros);
    add("mlp.up_proj.bias", Role::up_bias, {spec.F}, rows, fusions + 3, Init::zeros);
  }
  add("mlp.down_proj.weight", Role::down, {spec.C, spec.F}, {.splits = {{.dim = 1}}}, 0, Init::normal);
  if (spec.has_mlp_bias) add("mlp.down_proj.bias", Role::down_bias, {spec.C}, replicated, 0, Init::zeros);
}

}  // namespace

std::vector<WeightSpec> weights_of(const ModelSpec& spec, SequenceParallel sequence_parallel,
                                   bool has_tied_copy) {
  const bool is_sequence_parallel = sequence_parallel == SequenceParallel::on;
  const Layout vocabulary{.splits = {{.dim = 0}}};
  std::vector<WeightSpec> table;
  table.push_back(
      {.piece = {.name = "model.embed_tokens.weight", .shape = {spec.V, spec.C}, .layout = vocabulary},
       .role = Role::embedding});
  for (int block = 0; block < spec.L; ++block) add_block(table, spec, block, is_sequence_parallel);
  const int head_unit = static_cast<int>(spec.L) + 1;
  table.push_back({.piece = {.name = "model.norm.weight",
                             .shape = {spec.C},
                             .layout = {.splits = {}, .has_partial_gradients = is_sequence_parallel}},
                   .role = Role::final_norm,
                   .unit = head_unit,
                   .init = Init::ones,
                   .decays = false});
  if (!spec.is_tied || has_tied_copy) {
    table.push_back({.piece = {.name = spec.is_tied ? "model.embed_tokens.weight" : "lm_head.weight",
                               .shape = {spec.V, spec.C},
                               .layout = vocabulary},
                     .role = Role::head,
                     .unit = head_unit + (spec.is_tied ? 1 : 0),
                     .is_tied_copy = spec.is_tied});
  }
  return table;
}

LocalSizes local_sizes(const ModelSpec& spec, const Mesh& mesh, int rank) {
  const int tensor = mesh.coordinate_of(rank).tensor;
  const int64_t group = spec.H / spec.K;
  const Range heads = part_of(spec.H, tensor, mesh.tensor);
  const int64_t first_kv = heads.begin / group;
  const Range vocabulary = part_of(spec.V, tensor, mesh.tensor);
  return {.H = heads.count,
          .K = (heads.end() + group - 1) / group - first_kv,
          .F = part_of(spec.F, tensor, mesh.tensor).count,
          .V = vocabulary.count,
          .first_head = heads.begin - first_kv * group,
          .first_id = vocabulary.begin};
}

namespace {

/// A view of `count` placed weights that lie side by side, as one tensor of their joint rows.
Tensor joint_view(const PlacedWeight& first, int64_t joint_rows, const FlatMemory& memory) {
  Shape shape = first.box.extent;
  shape.set(0, joint_rows);
  return memory.at({first.offset, shape.numel()}).reshaped(shape);
}

}  // namespace

StageWeights bind_weights(const std::vector<PlacedWeight>& placed, Range units, const FlatMemory& memory,
                          int first_block, int blocks) {
  StageWeights stage;
  stage.blocks.resize(static_cast<size_t>(blocks));
  for (size_t i = 0; i < placed.size(); ++i) {
    const PlacedWeight& weight = placed[i];
    if (weight.spec.unit < units.begin || weight.spec.unit >= units.end()) continue;
    int64_t joint_rows = weight.box.extent[0];
    int64_t end = weight.offset + weight.box.numel();
    if (weight.spec.fusion != 0) {
      for (size_t j = i + 1; j < placed.size() && placed[j].spec.fusion == weight.spec.fusion; ++j) {
        check(placed[j].offset == end, "{} does not follow its fused neighbour", placed[j].spec.piece.name);
        joint_rows += placed[j].box.extent[0];
        end += placed[j].box.numel();
      }
    }
    const Tensor view = joint_view(weight, joint_rows, memory);
    const bool is_block = weight.spec.unit >= first_block + 1 && weight.spec.unit <= first_block + blocks;
    BlockWeights* block =
        is_block ? &stage.blocks[static_cast<size_t>(weight.spec.unit - 1 - first_block)] : nullptr;
    switch (weight.spec.role) {
      case Role::embedding:
        stage.embedding = view;
        break;
      case Role::norm_1:
        block->norm_1 = view;
        break;
      case Role::q:
        block->qkv = view;
        break;
      case Role::q_bias:
        block->qkv_bias = view;
        break;
      case Role::o:
        block->o = view;
        break;
      case Role::o_bias:
        block->o_bias = view;
        break;
      case Role::norm_2:
        block->norm_2 = view;
        break;
      case Role::gate:
        block->gate_up = view;
        break;
      case Role::gate_bias:
        block->gate_up_bias = view;
        break;
      case Role::down:
        block->down = view;
        break;
      case Role::down_bias:
        block->down_bias = view;
        break;
      case Role::final_norm:
        stage.final_norm = view;
        break;
      case Role::head:
        stage.head = view;
        break;
      case Role::k:
      case Role::v:
      case Role::k_bias:
      case Role::v_bias:
      case Role::up:
      case Role::up_bias:
        break;  // inside the joint view of q or gate
    }
  }
  if (stage.final_norm && !stage.head) stage.head = stage.embedding;  // tied, on one stage
  return stage;
}

}  // namespace ptrain
