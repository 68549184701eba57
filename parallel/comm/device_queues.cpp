#include "parallel/comm/device_queues.h"

namespace ptrain {

DeviceQueues::DeviceQueues(Device device, const Stream& compute, int events)
    : device_(device), compute_(&compute) {
  for (int i = 0; i < events; ++i) {
    events_.emplace_back(device);
    free_.push_back(i);
  }
}

int DeviceQueues::take_event() {
  if (free_.empty()) {
    ++event_growths_;
    free_.push_back(static_cast<int>(events_.size()));
    events_.emplace_back(device_);
  }
  const int event = free_.back();
  free_.pop_back();
  return event;
}

void DeviceQueues::check_members() const {
  for (const Member& member : members_) {
    const std::string error = member.comm->async_error();
    check(
        error.empty(), ExitCode::resources,
        "NCCL failed behind the scenes, on the communicator of {}: {}. Another rank or the network is gone; "
        "the other ranks' messages tell which",
        member.name, error);
  }
}

void DeviceQueues::remove(const NcclComm& comm) {
  std::erase_if(members_, [&](const Member& member) { return member.comm == &comm; });
}

}  // namespace ptrain
