#include "src/model/tensor_group.h"

#include "parallel/plan/layout.h"
#include "parallel/run/flat_memory.h"

namespace ptrain {
namespace {

constexpr const char *sum_name = "tensor sum", *gather_name = "tensor gather";
constexpr SpanCategory tensor = SpanCategory::tensor;

Tensor strip_of(Tensor rows, int strip, int strips) {
  if (strips == 1) return rows;
  const bool is_flat = rows.shape.dims() == 1;
  const Range range = part_of(is_flat ? rows.numel() : rows.rows(), strip, strips);
  return is_flat ? slice(rows, range) : rows.row_range(range.begin, range.count);
}

}  // namespace

Tensor RowsUnderWay::wait(int strip) {
  transfers_[static_cast<size_t>(strip)].wait();
  return strip_of(rows_, strip, strips_);
}

Tensor RowsUnderWay::wait() {
  for (WatchedTransfer& transfer : transfers_) transfer.wait();
  return rows_;
}

TensorGroup::TensorGroup(Communicator* comm, SequenceParallel sequence_parallel, int strips, Tensor partial)
    : comm_(comm != nullptr && comm->size() > 1 ? comm : nullptr),
      is_sequence_parallel_(comm_ != nullptr && sequence_parallel == SequenceParallel::on),
      strips_(comm_ != nullptr ? strips : 1),
      partial_(partial) {
  check(strips_ >= 1 && strips_ <= max_tensor_strips, "rows in {} strips", strips_);
}

Tensor TensorGroup::cut(Tensor tensor, int strip) const {
  return strip_of(tensor, strip, strips_);
}

RowsUnderWay TensorGroup::enter(Tensor local, Tensor whole) const {
  RowsUnderWay rows(is_sequence_parallel_ ? whole : local, strips_);
  for (int strip = 0; is_sequence_parallel_ && strip < strips_; ++strip) start_gather(local, strip, rows);
  return rows;
}

void TensorGroup::leave(Tensor local) const {
  leave(local, [](int, Tensor) {}).wait();
}

void TensorGroup::start_gather(Tensor local, int strip, RowsUnderWay& rows) const {
  Transfer gather = comm_->start_all_gather(cut(local, strip), cut(rows.rows_, strip));
  rows.transfers_[static_cast<size_t>(strip)] = {std::move(gather), tracer_, nullptr,
                                                 gather_name,       -1,      tensor};
}

void TensorGroup::start_sum(Tensor local, int strip, RowsUnderWay& rows) const {
  if (comm_ == nullptr) return;
  Transfer sum = is_sequence_parallel_ ? comm_->start_reduce_scatter(cut(partial_, strip), cut(local, strip))
                                       : comm_->start_all_reduce(cut(local, strip));
  rows.transfers_[static_cast<size_t>(strip)] = {std::move(sum), tracer_, nullptr, sum_name, -1, tensor};
}

void TensorGroup::all_gather(Tensor part, Tensor whole) const {
  const double begin_s = tracer_ != nullptr ? tracer_->now_s() : 0;
  comm_->all_gather(part, whole);
  if (tracer_ != nullptr) tracer_->note(gather_name, tensor, begin_s, tracer_->now_s());
}

}  // namespace ptrain
