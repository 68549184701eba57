#include "parallel/run/param_sync.h"

namespace ptrain {

ParamSync::ParamSync(const Plan& plan, const FlatLayout& layout, int data_coordinate, Communicator* data)
    : layout_(layout),
      zero_(plan.zero),
      data_coordinate_(data_coordinate),
      data_(data != nullptr && data->size() > 1 ? data : nullptr),
      residency_(zero_ == 3 ? unit_places(plan, layout) : UnitPlaces{}),
      order_(exchange_order(layout)),
      bucket_of_(plan.workload.units.size(), -1),
      under_way_(layout.buckets.size()) {
  for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
    const Range units = layout.buckets[bucket].units;
    for (int64_t unit = units.begin; unit < units.end(); ++unit)
      bucket_of_[static_cast<size_t>(unit)] = static_cast<int>(bucket);
  }
}

void ParamSync::bind(FlatMemory owned, FlatMemory read) {
  owned_ = std::move(owned);
  read_ = std::move(read);
}

void ParamSync::gather(int bucket) {
  Transfer gather = data_->start_all_gather(owned_.at(shard_of(layout_, bucket, data_coordinate_)),
                                            read_.at(layout_.buckets[static_cast<size_t>(bucket)].elements));
  under_way_[static_cast<size_t>(bucket)] = {std::move(gather), tracer_, ops_, "gather", bucket};
}

void ParamSync::start() {
  for (int bucket : order_) start(bucket);
}

void ParamSync::start(int bucket) {
  residency_.forget();
  if (data_ != nullptr && (zero_ == 1 || zero_ == 2)) gather(bucket);
}

void ParamSync::need(int64_t unit, int64_t next) {
  if (data_ == nullptr || zero_ == 0) return;
  look();
  const int bucket = bucket_of_[static_cast<size_t>(unit)];
  if (zero_ == 3 && residency_.take(bucket)) gather(bucket);
  under_way_[static_cast<size_t>(bucket)].wait();
  if (zero_ != 3 || next < 0) return;
  const int ahead = bucket_of_[static_cast<size_t>(next)];
  if (residency_.take(ahead)) gather(ahead);
}

void ParamSync::finish() {
  for (WatchedTransfer& transfer : under_way_) transfer.wait();
}

void ParamSync::look() {
  for (WatchedTransfer& transfer : under_way_) transfer.look();
}

}  // namespace ptrain
