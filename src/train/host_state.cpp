#include "src/train/host_state.h"

#include <algorithm>

#include "kernels/ops/adamw.h"

namespace ptrain {
namespace {

constexpr int64_t moved_elements = int64_t{8} << 20;

/// Calls each(run) for runs of at most a chunk that cover `range`.
template <class Each>
void over_runs(Range range, Each each) {
  for (int64_t begin = range.begin; begin < range.end(); begin += moved_elements)
    each(Range{begin, std::min(moved_elements, range.end() - begin)});
}

}  // namespace

HostState::HostState(Trainer& trainer, Parts parts)
    : trainer_(trainer),
      parts_(parts),
      weights_(trainer.model().context(), trainer.model().parameters(), DType::f32),
      map_(flat_memory(weights_.view(), trainer.model().layout(), trainer.coordinate().data,
                       trainer.model().held_parameters())) {
  if (parts == Parts::weights) return;
  m_ = HostFlat(trainer.model().context(), trainer.optimizer().m(), DType::f32);
  v_ = HostFlat(trainer.model().context(), trainer.optimizer().v(), DType::f32);
}

void HostState::set(const PlacedWeight& weight, Tensor values) const {
  const Range all{weight.offset, weight.box.numel()};
  const auto put = [&](Range elements) {
    std::copy_n(values.as<float>() + elements.begin - all.begin, elements.count,
                weights().at(elements).as<float>());
  };
  if (trainer_.model().held_parameters() == Held::whole) return put(all);
  for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
    if (const Range common = intersection(all, segment.elements); common.count > 0) put(common);
  }
}

void HostState::get() {
  trainer_.finish_exchange();
  weights_.get();
  if (parts_ == Parts::weights_and_moments) {
    m_.get();
    v_.get();
  }
  const Tensor master = trainer_.optimizer().master();
  if (!master) return;
  const Context& context = trainer_.model().context();
  Context host = host_context(context);
  for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
    over_runs(segment.elements, [&](Range run) {
      const Range state{segment.state + run.begin - segment.elements.begin, run.count};
      const Tensor wide = weights().at(run);
      if (master.dtype == DType::f32) return to_host(context, slice(master, state), wide);
      const OwnedTensor weight({run.count}, DType::bf16), low({run.count}, DType::i16);
      to_host(context, trainer_.model().owned_parameters().at(run), weight.view);
      to_host(context, slice(master, state), low.view);
      join_master(host, weight.view, low.view, wide);
    });
  }
}

void HostState::put() {
  trainer_.finish_exchange();
  const Tensor master = trainer_.optimizer().master();
  if (master && master.dtype == DType::i16) {
    put_split();
  } else {
    weights_.put();
    for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
      if (!master) break;
      from_host(trainer_.model().context(), weights().at(segment.elements),
                slice(master, {segment.state, segment.elements.count}));
    }
  }
  trainer_.note_new_parameters();
  if (parts_ == Parts::weights) return;
  m_.put();
  v_.put();
}

/// Every rank's weights by the rule of the split, so that replicas are equal whoever owns the low bits.
void HostState::put_split() {
  const Context& context = trainer_.model().context();
  Context host = host_context(context);
  over_runs({0, weights_.view().numel()}, [&](Range run) {
    const OwnedTensor weight({run.count}, DType::bf16);
    split_master(host, slice(weights_.view(), run), weight.view, {});
    from_host(context, weight.view, slice(trainer_.model().parameters(), run));
  });
  for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
    over_runs(segment.elements, [&](Range run) {
      const OwnedTensor weight({run.count}, DType::bf16), low({run.count}, DType::i16);
      split_master(host, weights().at(run), weight.view, low.view);
      from_host(context, low.view,
                slice(trainer_.optimizer().master(),
                      {segment.state + run.begin - segment.elements.begin, run.count}));
    });
  }
}

}  // namespace ptrain
