#include "parallel/run/grad_sync.h"

#include <algorithm>
#include <cstring>

namespace ptrain {
Tensor slice(Tensor flat, Range range) {
  return Tensor(static_cast<char*>(flat.data) + range.begin * size_bytes(flat.dtype), {range.count},
                flat.dtype, flat.device);
}

GradSync::GradSync(const Workload& workload, const FlatLayout& layout, const Mesh& mesh, int zero,
                   int data_coordinate, Communicator* tensor, Communicator* data)
    : layout_(layout),
      zero_(zero),
      data_coordinate_(data_coordinate),
      tensor_(tensor != nullptr && tensor->size() > 1 ? tensor : nullptr),
      data_(data != nullptr && data->size() > 1 ? data : nullptr) {
  if (tensor_ == nullptr) return;
  std::vector<int64_t> staged(layout.buckets.size());
  for (const FlatPiece& flat : layout.pieces) {
    const Piece& piece =
        workload.units[static_cast<size_t>(flat.unit)].pieces[static_cast<size_t>(flat.index)].piece;
    const bool is_cut = !piece.layout.splits.empty();
    const bool has_addends =
        is_cut ? has_tensor_replicas(piece.shape, piece.layout, mesh) : piece.layout.has_partial_gradients;
    if (!has_addends || !piece.is_trainable) continue;
    for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
      if (intersection(layout.buckets[bucket].elements, flat.elements).count == 0) continue;
      replicated_.push_back({.bucket = static_cast<int>(bucket),
                             .shape = piece.shape,
                             .box = flat.box,
                             .offset = flat.elements.begin,
                             .staged = staged[bucket]});
      staged[bucket] += piece.shape.numel();
    }
  }
  for (int64_t elements : staged) staging_elements_ = std::max(staging_elements_, elements);
}

void GradSync::bind(Tensor gradients, Tensor staging) {
  gradients_ = gradients;
  staging_ = staging;
}

void GradSync::sum_replicas(int bucket) {
  const int64_t unit = size_bytes(gradients_.dtype);
  const auto at = [&](Tensor tensor, int64_t element) {
    return static_cast<char*>(tensor.data) + element * unit;
  };
  int64_t elements = 0;
  for (const ReplicatedPiece& piece : replicated_) {
    if (piece.bucket != bucket) continue;
    elements = std::max(elements, piece.staged + piece.shape.numel());
    std::memset(at(staging_, piece.staged), 0, static_cast<size_t>(piece.shape.numel() * unit));
    for_each_run(piece.shape, piece.box, [&](int64_t global, int64_t local, int64_t count) {
      std::memcpy(at(staging_, piece.staged + global), at(gradients_, piece.offset + local),
                  static_cast<size_t>(count * unit));
    });
  }
  if (elements == 0) return;
  tensor_->all_reduce(slice(staging_, {0, elements}));
  for (const ReplicatedPiece& piece : replicated_) {
    if (piece.bucket != bucket) continue;
    for_each_run(piece.shape, piece.box, [&](int64_t global, int64_t local, int64_t count) {
      std::memcpy(at(gradients_, piece.offset + local), at(staging_, piece.staged + global),
                  static_cast<size_t>(count * unit));
    });
  }
}

void GradSync::start(int bucket) {
  if (tensor_ != nullptr) sum_replicas(bucket);
  if (data_ == nullptr) return;
  const Range range = layout_.buckets[static_cast<size_t>(bucket)].elements;
  under_way_.push_back(data_->start_reduce_scatter(
      slice(gradients_, range), slice(gradients_, shard_of(layout_, bucket, data_coordinate_))));
  started_.push_back(bucket);
}

void GradSync::finish() {
  for (Transfer& transfer : under_way_) transfer.wait();
  under_way_.clear();
  if (zero_ == 0) {
    for (int bucket : started_) {
      data_->all_gather(slice(gradients_, shard_of(layout_, bucket, data_coordinate_)),
                        slice(gradients_, layout_.buckets[static_cast<size_t>(bucket)].elements));
    }
  }
  started_.clear();
}

}  // namespace ptrain
