#include "parallel/run/replica_sums.h"

#include <algorithm>
#include <cstring>

namespace ptrain {
namespace {

/// Rows of bytes, in the order of the stream where there is one.
void copy_rows(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
               int64_t rows, const Stream* stream) {
  if (stream != nullptr)
    return runtime::copy_async_2d(to, to_pitch, from, from_pitch, row_bytes, rows, stream->native());
  for (int64_t row = 0; row < rows; ++row)
    std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch,
                static_cast<size_t>(row_bytes));
}

}  // namespace

ReplicaSums::ReplicaSums(const Workload& workload, const FlatLayout& layout, const Mesh& mesh,
                         Communicator* tensor)
    : tensor_(tensor != nullptr && tensor->size() > 1 ? tensor : nullptr) {
  if (tensor_ == nullptr) return;
  std::vector<int64_t> staged(layout.buckets.size());
  for (const FlatPiece& flat : layout.pieces) {
    const Piece& piece =
        workload.units[static_cast<size_t>(flat.unit)].pieces[static_cast<size_t>(flat.index)].piece;
    if (!has_addends(piece, mesh)) continue;
    for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) {
      if (intersection(layout.buckets[bucket].elements, flat.elements).count == 0) continue;
      replicated_.push_back({.bucket = static_cast<int>(bucket),
                             .shape = piece.shape,
                             .box = flat.box,
                             .elements = flat.elements,
                             .staged = staged[bucket]});
      staged[bucket] += piece.shape.numel();
    }
  }
  for (int64_t elements : staged) staging_elements_ = std::max(staging_elements_, elements);
}

void ReplicaSums::bind(Tensor staging, const Stream* stream) {
  staging_ = staging;
  stream_ = stream;
}

/// The rank's box of a piece to its place in the whole piece, or back.
void ReplicaSums::copy_box(const ReplicatedPiece& piece, Tensor gradients, Way way) const {
  const int64_t unit = size_bytes(gradients.dtype);
  // Rows along the last dimension but one lie at equal distances: they go in one copy.
  const int64_t rows = piece.box.extent.dims() < 2 ? 1 : piece.box.extent[-2];
  const int64_t whole_pitch = piece.shape.columns() * unit, box_pitch = piece.box.extent.columns() * unit;
  int64_t row = 0;
  for_each_run(piece.shape, piece.box, [&](int64_t global, int64_t local, int64_t count) {
    if (row++ % rows != 0) return;
    void* whole = staging_.at(piece.staged + global);
    void* box = gradients.at(local);
    if (way == Way::to_staging) {
      copy_rows(whole, whole_pitch, box, box_pitch, count * unit, rows, stream_);
    } else {
      copy_rows(box, box_pitch, whole, whole_pitch, count * unit, rows, stream_);
    }
  });
}

void ReplicaSums::sum(int bucket, const FlatMemory& gradients) const {
  int64_t elements = 0;
  for (const ReplicatedPiece& piece : replicated_) {
    if (piece.bucket == bucket) elements = std::max(elements, piece.staged + piece.shape.numel());
  }
  if (elements == 0) return;
  const Tensor staged = slice(staging_, {0, elements});
  if (stream_ != nullptr) {
    runtime::set_async(staged.data, 0, staged.bytes(), stream_->native());
  } else {
    std::memset(staged.data, 0, static_cast<size_t>(staged.bytes()));
  }
  for (const ReplicatedPiece& piece : replicated_) {
    if (piece.bucket == bucket) copy_box(piece, gradients.at(piece.elements), Way::to_staging);
  }
  tensor_->all_reduce(staged);
  for (const ReplicatedPiece& piece : replicated_) {
    if (piece.bucket == bucket) copy_box(piece, gradients.at(piece.elements), Way::to_gradients);
  }
}

}  // namespace ptrain
