// What the communicators of a rank's device share: the compute stream and a pool of events between it and
// theirs. Not for communication itself: see device_comm.h.
#pragma once

#include <string>
#include <vector>

#include "kernels/base/stream.h"
#include "parallel/comm/nccl_door.h"

namespace ptrain {

class DeviceQueues {
 public:
  /// `compute` must outlive this. events: transfers that are under way at the same time.
  DeviceQueues(Device device, const Stream& compute, int events);

  Device device() const { return device_; }
  const Stream& compute() const { return *compute_; }

  /// An event until it is given back. One is made where all are taken, which event_growths() counts.
  int take_event();
  void give_back(int event) { free_.push_back(event); }
  const Event& event(int number) const { return events_[static_cast<size_t>(number)]; }
  int64_t event_growths() const { return event_growths_; }

  /// Errors (resources): what went wrong on one of the communicators that were added, with its name.
  void check_members() const;
  void add(NcclComm& comm, std::string name) { members_.push_back({&comm, std::move(name)}); }
  void remove(const NcclComm& comm);

  bool has_dropped = false;  // a Transfer was destroyed before it was waited for

 private:
  struct Member {
    NcclComm* comm;
    std::string name;
  };

  Device device_;
  const Stream* compute_;
  std::vector<Event> events_;
  std::vector<int> free_;
  int64_t event_growths_ = 0;
  std::vector<Member> members_;
};

}  // namespace ptrain
