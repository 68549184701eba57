#include "parallel/comm/communicator.h"

namespace ptrain {

std::string_view name_of(CommKind kind) {
  switch (kind) {
    case CommKind::all_reduce:
      return "all_reduce";
    case CommKind::all_gather:
      return "all_gather";
    case CommKind::reduce_scatter:
      return "reduce_scatter";
    case CommKind::broadcast:
      return "broadcast";
    case CommKind::all_to_all:
      return "all_to_all";
    case CommKind::barrier:
      return "barrier";
    case CommKind::point_to_point:
      return "point_to_point";
  }
  return "?";
}

Transfer& Transfer::operator=(Transfer&& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(id_, other.id_);
  return *this;
}

Transfer::~Transfer() {
  if (owner_ != nullptr) owner_->abandon(id_);
}

bool Transfer::is_done() {
  if (owner_ == nullptr) return true;
  if (!owner_->finish_if_done(id_)) return false;
  owner_ = nullptr;
  return true;
}

void Transfer::wait() {
  if (owner_ == nullptr) return;
  owner_->finish(id_);
  owner_ = nullptr;
}

}  // namespace ptrain
