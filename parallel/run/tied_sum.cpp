#include "parallel/run/tied_sum.h"

#include <algorithm>

#include "kernels/ops/elementwise.h"

namespace ptrain {

TiedSum::TiedSum(const Plan& plan, const FlatLayout& layout, int rank, Communicator* pipeline)
    : ends_(tied_ends(plan, layout, rank)), pipeline_(pipeline) {
  const int data = plan.mesh.coordinate_of(rank).data;
  if (ends_.embedding >= 0) shard_ = shard_of(layout, ends_.embedding, data);
  if (ends_.table >= 0) (ends_.embedding >= 0 ? other_ : shard_) = shard_of(layout, ends_.table, data);
}

void TiedSum::run(Context& context) {
  if (shard_.count == 0) return;
  const Tensor own = summed_.at(shard_);
  if (ends_.peer < 0) {
    const Tensor other = summed_.at(other_);
    add(context, other, own);
    copy(context, own, other);
    return;
  }
  Transfer sent = pipeline_->isend(own, ends_.peer, Lane::control);
  pipeline_->irecv(received_, ends_.peer, Lane::control).wait();
  sent.wait();  // its memory is about to become the sum
  add(context, received_, own);
}

}  // namespace ptrain
