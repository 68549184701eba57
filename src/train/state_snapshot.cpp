#include "src/train/state_snapshot.h"

#include <algorithm>

#include "kernels/base/stream.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/elementwise.h"
#include "src/model/host_flat.h"
#include "src/train/state_files.h"

namespace ptrain {
namespace {

constexpr int64_t staged_elements = int64_t{4} << 20;

/// A weight's two halves on their way: bf16 and the 16 bits that it leaves out.
constexpr int64_t staged_bytes = 2 * 2;

bool has_split_master(const Trainer& trainer) {
  return trainer.optimizer().master() && trainer.optimizer().master().dtype == DType::i16;
}

/// Both of one dtype and contiguous; in the order of the context's ops.
void bring(const Context& context, Tensor from, Tensor to) {
  if (from.device.kind != DeviceKind::cpu) return transfer(context, from, to);
  Context host = host_context(context);
  copy(host, from, to);
}

void wait_for(const Context& context) {
  if (context.stream != nullptr) context.stream->synchronize();
}

}  // namespace

int64_t StateSnapshot::bytes_of(const Trainer& trainer) {
  return 3 * trainer.optimizer().state_elements() * size_bytes(DType::f32);
}

StateSnapshot::StateSnapshot(Trainer& trainer)
    : trainer_(trainer), memory_(Buffer::staging(bytes_of(trainer), trainer.model().context().device)) {
  const int64_t elements = trainer.optimizer().state_elements();
  const Tensor all(memory_.data(), {3 * elements}, DType::f32);
  Context host = host_context(trainer.model().context());
  fill(host, all, 0);
  weights_ = slice(all, {0, elements});
  m_ = slice(all, {elements, elements});
  v_ = slice(all, {2 * elements, elements});
  for (const UpdateSegment& segment : trainer.optimizer().segments())
    map_.add(segment.elements, slice(weights_, {segment.state, segment.elements.count}));
  if (has_split_master(trainer))
    staging_ =
        Buffer::staging(std::min(staged_elements, elements) * staged_bytes, trainer.model().context().device);
}

/// The same values as HostState's.
void StateSnapshot::take_weights() {
  const Context& context = trainer_.model().context();
  const Tensor master = trainer_.optimizer().master();
  const FlatMemory& parameters = trainer_.model().owned_parameters();
  if (master && master.dtype == DType::f32) return bring(context, master, weights_);
  for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
    const Tensor wide = map_.at(segment.elements);
    if (!master) {
      const Tensor from = parameters.at(segment.elements);
      if (from.dtype == DType::f32)
        bring(context, from, wide);
      else
        to_host(context, from, wide);
      continue;
    }
    Context host = host_context(context);
    for (int64_t begin = 0; begin < segment.elements.count; begin += staged_elements) {
      const int64_t count = std::min(staged_elements, segment.elements.count - begin);
      const Tensor weight(staging_.data(), {count}, DType::bf16);
      const Tensor low(weight.at(count), {count}, DType::i16);
      bring(context, parameters.at({segment.elements.begin + begin, count}), weight);
      bring(context, slice(master, {segment.state + begin, count}), low);
      wait_for(context);
      join_master(host, weight, low, slice(wide, {begin, count}));
    }
  }
}

void StateSnapshot::take(int64_t step) {
  const Context& context = trainer_.model().context();
  step_ = 0;  // should an error leave it half taken
  take_weights();
  bring(context, trainer_.optimizer().m(), m_);
  bring(context, trainer_.optimizer().v(), v_);
  wait_for(context);
  step_ = step;
}

/// As HostState's put(), of what this rank owns.
void StateSnapshot::put_back_weights() {
  const Context& context = trainer_.model().context();
  const Tensor master = trainer_.optimizer().master();
  const FlatMemory& parameters = trainer_.model().owned_parameters();
  Context host = host_context(context);
  for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
    const Tensor wide = map_.at(segment.elements);
    if (!has_split_master(trainer_)) {
      from_host(context, wide, parameters.at(segment.elements));
      if (master) from_host(context, wide, slice(master, {segment.state, segment.elements.count}));
      continue;
    }
    for (int64_t begin = 0; begin < segment.elements.count; begin += staged_elements) {
      const int64_t count = std::min(staged_elements, segment.elements.count - begin);
      const Tensor weight(staging_.data(), {count}, DType::bf16);
      const Tensor low(weight.at(count), {count}, DType::i16);
      split_master(host, slice(wide, {begin, count}), weight, low);
      from_host(context, weight, parameters.at({segment.elements.begin + begin, count}));
      from_host(context, low, slice(master, {segment.state + begin, count}));
    }
  }
}

void StateSnapshot::put_back() {
  const Context& context = trainer_.model().context();
  trainer_.finish_exchange();
  put_back_weights();
  from_host(context, m_, trainer_.optimizer().m());
  from_host(context, v_, trainer_.optimizer().v());
  trainer_.spread_new_parameters();
}

std::vector<StateSlice> StateSnapshot::slices() const {
  return slices_to_save(trainer_, map_, m_, v_);
}

}  // namespace ptrain
