#include "src/train/optimizer.h"

#include "kernels/ops/elementwise.h"
#include "kernels/ops/exact_sum.h"
namespace ptrain {

Optimizer::Optimizer(const FlatLayout& layout, const std::vector<PlacedWeight>& placed, int zero,
                     int data_coordinate) {
  for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
    const Range shard = shard_of(layout, static_cast<int>(bucket), data_coordinate);
    // Norms are taken on the shard in either mode: after the sum all data ranks hold the same, so each counts
    // its part.
    for (Range range : counted_in(layout, shard)) counted_.push_back(range);
    // State lies in the order of the flat layout, all of it or shard behind shard.
    const Range mine = zero == 0 ? layout.buckets[bucket].elements : shard;
    const int64_t state = zero == 0 ? mine.begin : compact_shard(layout, static_cast<int>(bucket)).begin;
    const auto first_segment = static_cast<int64_t>(segments_.size());
    for (size_t weight = 0; weight < placed.size(); ++weight) {
      const Range elements = intersection(mine, {placed[weight].offset, placed[weight].box.numel()});
      if (elements.count == 0) continue;
      segments_.push_back({.weight = static_cast<int>(weight),
                           .elements = elements,
                           .state = state + elements.begin - mine.begin,
                           .decays = placed[weight].spec.decays});
    }
    const int64_t segments = static_cast<int64_t>(segments_.size()) - first_segment;
    ranges_.push_back({.elements = mine, .state = state, .segments = {first_segment, segments}});
    state_elements_ += mine.count;
  }
}

void Optimizer::bind(Tensor m, Tensor v, Tensor master) {
  m_ = m;
  v_ = v;
  master_ = master;
}

void Optimizer::sum_of_squares(Context& context, const FlatMemory& gradients, Tensor sum) const {
  for (Range range : counted_) ptrain::sum_of_squares(context, gradients.at(range), sum);
}

void Optimizer::exact_sum_of_squares(Context& context, const FlatMemory& gradients, Tensor bins) const {
  // Zero has the same bits in both; fill() knows floats.
  fill(context, Tensor(bins.data, {bins.numel()}, DType::f64, bins.device), 0);
  for (Range range : counted_) ptrain::exact_sum_of_squares(context, gradients.at(range), bins);
}

void Optimizer::update(Context& context, const AdamWStep& step, Tensor scale, const FlatMemory& parameters,
                       const FlatMemory& gradients) const {
  for (int bucket = 0; bucket < static_cast<int>(ranges_.size()); ++bucket)
    update_bucket(context, bucket, step, scale, parameters, gradients);
}

void Optimizer::update_bucket(Context& context, int bucket, const AdamWStep& step, Tensor scale,
                              const FlatMemory& parameters, const FlatMemory& gradients) const {
  const Range segments = ranges_[static_cast<size_t>(bucket)].segments;
  for (int64_t index = segments.begin; index < segments.end(); ++index) {
    const UpdateSegment& segment = segments_[static_cast<size_t>(index)];
    AdamWStep with_decay = step;
    if (!segment.decays) with_decay.weight_decay = 0;
    const Range state{segment.state, segment.elements.count};
    adamw(context, with_decay, scale, parameters.at(segment.elements),
          master_ ? slice(master_, state) : Tensor{}, gradients.at(segment.elements), slice(m_, state),
          slice(v_, state));
  }
}

}  // namespace ptrain
