#include "src/train/host_state.h"

#include <algorithm>

#include "kernels/ops/adamw.h"

namespace ptrain {
namespace {

constexpr int64_t chunk_elements = int64_t{8} << 20;

/// Calls each(run) for runs of at most a chunk that cover `range`.
template <class Each>
void over_runs(Range range, Each each) {
  for (int64_t begin = range.begin; begin < range.end(); begin += chunk_elements)
    each(Range{begin, std::min(chunk_elements, range.end() - begin)});
}

}  // namespace

HostState::HostState(Trainer& trainer, Parts parts)
    : trainer_(trainer),
      parts_(parts),
      weights_(trainer.stage().context(), trainer.stage().parameters(), DType::f32) {
  if (parts == Parts::weights) return;
  m_ = HostFlat(trainer.stage().context(), trainer.optimizer().m(), DType::f32);
  v_ = HostFlat(trainer.stage().context(), trainer.optimizer().v(), DType::f32);
}

void HostState::get() {
  weights_.get();
  if (parts_ == Parts::weights_and_moments) {
    m_.get();
    v_.get();
  }
  const Tensor master = trainer_.optimizer().master();
  if (!master) return;
  const Context& context = trainer_.stage().context();
  Context host = host_context(context);
  for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
    over_runs(segment.elements, [&](Range run) {
      const Range state{segment.state + run.begin - segment.elements.begin, run.count};
      const Tensor wide = slice(weights(), run);
      if (master.dtype == DType::f32) return to_host(context, slice(master, state), wide);
      const OwnedTensor weight({run.count}, DType::bf16), low({run.count}, DType::i16);
      to_host(context, slice(trainer_.stage().parameters(), run), weight.view);
      to_host(context, slice(master, state), low.view);
      join_master(host, weight.view, low.view, wide);
    });
  }
}

void HostState::put() {
  const Tensor master = trainer_.optimizer().master();
  if (master && master.dtype == DType::i16) {
    put_split();
  } else {
    weights_.put();
    for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
      if (!master) break;
      from_host(trainer_.stage().context(), slice(weights(), segment.elements),
                slice(master, {segment.state, segment.elements.count}));
    }
  }
  if (parts_ == Parts::weights) return;
  m_.put();
  v_.put();
}

/// Every rank's weights by the rule of the split, so that replicas are equal whoever owns the low bits.
void HostState::put_split() {
  const Context& context = trainer_.stage().context();
  Context host = host_context(context);
  over_runs({0, weights().numel()}, [&](Range run) {
    const OwnedTensor weight({run.count}, DType::bf16);
    split_master(host, slice(weights(), run), weight.view, {});
    from_host(context, weight.view, slice(trainer_.stage().parameters(), run));
  });
  for (const UpdateSegment& segment : trainer_.optimizer().segments()) {
    over_runs(segment.elements, [&](Range run) {
      const OwnedTensor weight({run.count}, DType::bf16), low({run.count}, DType::i16);
      split_master(host, slice(weights(), run), weight.view, low.view);
      from_host(context, low.view,
                slice(trainer_.optimizer().master(),
                      {segment.state + run.begin - segment.elements.begin, run.count}));
    });
  }
}

}  // namespace ptrain
