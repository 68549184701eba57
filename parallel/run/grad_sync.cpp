#include "parallel/run/grad_sync.h"

#include "kernels/base/error.h"
#include "kernels/ops/elementwise.h"

namespace ptrain {
namespace {

std::vector<Range> regions_of(const FlatLayout& layout) {
  std::vector<Range> regions;
  for (const FlatBucket& bucket : layout.buckets) regions.push_back(bucket.elements);
  return regions;
}

}  // namespace

GradSync::GradSync(const Plan& plan, const FlatLayout& layout, int data_coordinate, Communicator* tensor,
                   Communicator* data)
    : layout_(layout),
      zero_(plan.zero),
      data_coordinate_(data_coordinate),
      data_(data != nullptr && data->size() > 1 ? data : nullptr),
      replicas_(plan.workload, layout, plan.mesh, tensor),
      order_(plan.parallel.is_grid_invariant ? SumOrder::tree : SumOrder::ranks),
      tree_(plan.micros, regions_of(layout)),
      micros_(plan.micros) {
  if (!plan.has_unit_gradients()) return;
  if (plan.zero < 2) closed_.resize(layout.buckets.size());
  const UnitPlaces places = unit_places(plan, layout);
  place_of_ = places.of_bucket;
  places_.resize(places.elements.size());
}

void GradSync::bind(FlatMemory written, FlatMemory summed, Tensor staging, const Context& context,
                    std::vector<Tensor> levels) {
  const bool is_on_cpu = written.is_empty() || written.device().kind == DeviceKind::cpu;
  check(is_on_cpu == (context.stream == nullptr),
        "gradients on a device need its stream, those of a CPU none");
  written_ = std::move(written);
  summed_ = std::move(summed);
  context_ = context;
  replicas_.bind(staging, context.stream);
  if (has_tree()) tree_.bind(std::move(levels));
}

Tensor GradSync::own_shard(const FlatMemory& memory, int bucket) const {
  return memory.at(shard_of(layout_, bucket, data_coordinate_));
}

WatchedTransfer GradSync::start_sum(int bucket, const FlatMemory& memory) {
  Transfer sum = data_->start_reduce_scatter(memory.at(layout_.buckets[static_cast<size_t>(bucket)].elements),
                                             own_shard(memory, bucket), order_);
  return {std::move(sum), tracer_, ops_, name_of(ActionKind::reduce).data(), bucket};
}

void GradSync::look() {
  for (WatchedTransfer& transfer : under_way_) transfer.look();
  for (UnderWay& place : places_) place.transfer.look();
}

void GradSync::start(int bucket) {
  replicas_.sum(bucket, summed_);
  if (data_ == nullptr) return;
  under_way_.push_back(start_sum(bucket, summed_));
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
  look();
  if (has_tree()) {
    int& closed = closed_[static_cast<size_t>(bucket)];
    const Range elements = layout_.buckets[static_cast<size_t>(bucket)].elements;
    const bool is_last = tree_.add(context_, bucket, closed, written_.at(elements));
    closed = (closed + 1) % micros_;
    if (!is_last) return;
    copy(context_, written_.at(elements), summed_.at(elements));
    return start(bucket);
  }
  replicas_.sum(bucket, written_);
  UnderWay& place = places_[static_cast<size_t>(place_of_[static_cast<size_t>(bucket)])];
  place.transfer = start_sum(bucket, written_);
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
      data_->all_gather(own_shard(summed_, bucket),
                        summed_.at(layout_.buckets[static_cast<size_t>(bucket)].elements));
  }
  started_.clear();
}

}  // namespace ptrain
