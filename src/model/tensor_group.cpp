#include "src/model/tensor_group.h"

namespace ptrain {

TensorGroup::TensorGroup(Communicator* comm, SequenceParallel sequence_parallel, Tensor partial)
    : comm_(comm != nullptr && comm->size() > 1 ? comm : nullptr),
      is_sequence_parallel_(comm_ != nullptr && sequence_parallel == SequenceParallel::on),
      partial_(partial) {}

Tensor TensorGroup::enter(Tensor local, Tensor whole) const {
  if (!is_sequence_parallel_) return local;
  comm_->all_gather(local, whole);
  return whole;
}

void TensorGroup::leave(Tensor local) const {
  if (comm_ == nullptr) return;
  if (is_sequence_parallel_) {
    comm_->reduce_scatter(partial_, local);
  } else {
    comm_->all_reduce(local);
  }
}

}  // namespace ptrain
