#include "launch/bench/random_weights.h"

#include "kernels/base/rng.h"
#include "kernels/ops/elementwise.h"
#include "launch/bench/workbench.h"
#include "parallel/run/grad_sync.h"
#include "src/model/host_flat.h"

namespace ptrain::bench {
namespace {

constexpr int64_t block_elements = (int64_t{2} << 20) + 8209;  // odd against every size of a layer

OwnedTensor normal_block(const Context& context, double deviation, DType dtype) {
  const Rng rng(20250701, 0);
  const OwnedTensor host({block_elements}, DType::f32);
  float* values = host.view.as<float>();
#pragma omp parallel for num_threads(context.threads) schedule(static)
  for (int64_t i = 0; i < block_elements; ++i)
    values[i] = static_cast<float>(deviation * rng.normal(static_cast<uint64_t>(i)));
  OwnedTensor block({block_elements}, dtype, context.device);
  from_host(context, host.view, block.view);
  return block;
}

}  // namespace

void make_up_weights(const Context& context, const ModelSpec& spec, const std::vector<PlacedWeight>& placed,
                     Tensor flat) {
  const OwnedTensor block = normal_block(context, spec.init_range, flat.dtype);
  Context ops = context;
  for (const PlacedWeight& weight : placed) {
    const Tensor values = slice(flat, {weight.offset, weight.box.numel()});
    if (weight.spec.init == Init::normal) {
      const bool is_table = weight.spec.role == Role::embedding || weight.spec.role == Role::head;
      // Both ends of a pipeline hold a tied table.
      const uint64_t first = hash_of(spec.is_tied && is_table ? "tied" : weight.spec.piece.name);
      tile(context, block.view, static_cast<int64_t>(first % block_elements), values);
    } else {
      fill(ops, values, weight.spec.init == Init::ones ? 1 : 0);
    }
  }
  if (context.stream != nullptr) context.stream->synchronize();  // before the block goes
}

void make_up_weights(Trainer& trainer) {
  const Model& model = trainer.model();
  Context& context = trainer.model().context();
  make_up_weights(context, model.spec(), model.placed(), model.parameters());
  const Tensor master = trainer.optimizer().master();
  trainer.note_new_parameters();
  if (!master) return;
  for (const UpdateSegment& segment : trainer.optimizer().segments()) {
    const Tensor part = slice(master, {segment.state, segment.elements.count});
    if (master.dtype == DType::i16)
      continue;  // no bits are left out of what is a 16-bit value: zeros, as made
    const Tensor weight = model.owned_parameters().at(segment.elements);
    if (part.device.kind == DeviceKind::cpu) {
      to_host(context, weight, part);  // also where the optimizer is offloaded
    } else {
      copy(context, weight, part);
    }
  }
  if (context.stream != nullptr) context.stream->synchronize();
}

}  // namespace ptrain::bench
