// How a trainer is watched: who notes what, and how much that may be.
#include <algorithm>

#include "parallel/plan/launch_order.h"
#include "src/train/trainer.h"

namespace ptrain {

void Trainer::set_tracer(Tracer* tracer) {
  tracer_ = tracer;
  train_.set_tracer(tracer);
  watch(tracer);
}

/// Who notes sums and gathers that set out from here on.
void Trainer::watch(Tracer* tracer) {
  gradients_.set_tracer(tracer);
  parameters_.set_tracer(tracer);
  model_.set_tracer(tracer);
}

/// Notes sums and gathers that are done by now.
void Trainer::look() {
  if (tracer_ == nullptr || !tracer_->sees_transfers()) return;
  gradients_.look();
  parameters_.look();
}

size_t Trainer::spans_of_a_step() const {
  // Of a bucket and micro-batch at most: gathered for forward and backward, summed. And the phases of a step.
  constexpr size_t most_of_a_bucket = 3, phases = 32;
  const auto of_layers = std::ranges::count(launches_of(plan_, rank_), LaunchWire::tensor, &Launch::wire);
  return train_.program().size() + phases + static_cast<size_t>(of_layers) +
         most_of_a_bucket * model_.layout().buckets.size() * static_cast<size_t>(plan_.micros);
}

}  // namespace ptrain
