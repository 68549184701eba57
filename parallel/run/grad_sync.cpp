#include "parallel/run/grad_sync.h"

#include "kernels/base/error.h"
#include "kernels/ops/elementwise.h"

namespace ptrain {

GradSync::GradSync(const Plan& plan, const FlatLayout& layout, int data_coordinate, Communicator* tensor,
                   Communicator* data)
    : layout_(layout),
      zero_(plan.zero),
      data_coordinate_(data_coordinate),
      data_(data != nullptr && data->size() > 1 ? data : nullptr),
      replicas_(plan.workload, layout, plan.mesh, tensor) {
  if (!plan.has_unit_gradients()) return;
  const UnitPlaces places = unit_places(plan, layout);
  place_of_ = places.of_bucket;
  places_.resize(places.elements.size());
}

void GradSync::bind(FlatMemory written, FlatMemory summed, Tensor staging, const Context& context) {
  const bool is_on_cpu = written.is_empty() || written.device().kind == DeviceKind::cpu;
  check(is_on_cpu == (context.stream == nullptr),
        "gradients on a device need its stream, those of a CPU none");
  written_ = std::move(written);
  summed_ = std::move(summed);
  context_ = context;
  replicas_.bind(staging, context.stream);
}

Tensor GradSync::own_shard(const FlatMemory& memory, int bucket) const {
  return memory.at(shard_of(layout_, bucket, data_coordinate_));
}

WatchedTransfer GradSync::start_sum(int bucket) {
  Transfer sum = data_->start_reduce_scatter(
      written_.at(layout_.buckets[static_cast<size_t>(bucket)].elements), own_shard(written_, bucket));
  return {std::move(sum), tracer_, name_of(ActionKind::reduce), bucket};
}

void GradSync::look() {
  for (WatchedTransfer& transfer : under_way_) transfer.look();
  for (UnderWay& place : places_) place.transfer.look();
}

void GradSync::start(int bucket) {
  replicas_.sum(bucket, written_);
  if (data_ == nullptr) return;
  under_way_.push_back(start_sum(bucket));
  started_.push_back(bucket);
}

void GradSync::retire(UnderWay& place) {
  if (place.bucket < 0) return;
  place.transfer.wait();
  add(context_, own_shard(written_, place.bucket), own_shard(summed_, place.bucket));
  place.bucket = -1;
}

void GradSync::open(int bucket) {
  retire(places_[static_cast<size_t>(place_of_[static_cast<size_t>(bucket)])]);
  fill(context_, written_.at(layout_.buckets[static_cast<size_t>(bucket)].elements), 0);
}

void GradSync::close(int bucket) {
  replicas_.sum(bucket, written_);
  UnderWay& place = places_[static_cast<size_t>(place_of_[static_cast<size_t>(bucket)])];
  place.transfer = start_sum(bucket);
  place.bucket = bucket;
}

void GradSync::finish() {
  for (WatchedTransfer& transfer : under_way_) transfer.wait();
  under_way_.clear();
  for (UnderWay& place : places_) retire(place);
}

void GradSync::gather() {
  if (zero_ == 0) {
    for (int bucket : started_)
      data_->all_gather(own_shard(written_, bucket),
                        written_.at(layout_.buckets[static_cast<size_t>(bucket)].elements));
  }
  started_.clear();
}

}  // namespace ptrain
