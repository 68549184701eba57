// What DeviceComm counts, for its traffic and for the ring of operations; declared in device_comm.h.
#include "kernels/base/rng.h"
#include "parallel/comm/device_comm.h"
#include "parallel/comm/op_ring.h"

namespace ptrain {

void DeviceComm::join_ring(OpRing* ring) {
  if (ring_ != nullptr) ring_->remove_group(op_group_);
  ring_ = ring;
  if (ring_ == nullptr) return;
  const auto number = static_cast<uint32_t>(hash_of(fmt::format("{} on devices", id())));
  op_group_ = ring_->add_group(number, name_, size());
}

void DeviceComm::set_op_ring(OpRing* ring) {
  host_.set_op_ring(ring);
  join_ring(ring);
}

void DeviceComm::set_name(std::string_view name) {
  host_.set_name(name);
  if (ring_ != nullptr) ring_->name_group(op_group_, fmt::format("{} on devices", name));
}

void DeviceComm::count(CommKind kind, int64_t messages, int64_t bytes) {
  if (ring_ != nullptr && kind != CommKind::point_to_point) ring_->enter(op_group_);
  Traffic::Line& line = own_[kind];
  ++line.calls;
  line.messages += messages;
  line.bytes += bytes;
}

}  // namespace ptrain
