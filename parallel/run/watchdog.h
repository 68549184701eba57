// Watches a run from a thread of its own on every rank: the ranks tell one of them, over TCP, whether their
// work makes progress; where it does not, or a rank does not answer, that one judges and the run ends. No MPI
// is called here but by the constructor. Not for who is to blame (hang_report) nor for files (src/train).
//
// A star: every rank tells rank 0, some 500 bytes a second, which is 0.5 MB/s and one pass over the links
// every half second at 1,024 ranks; a tree would add ranks whose silence looks like that of those behind
// them. Rank 1 and the first rank of another host stand by where rank 0 falls silent itself.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "parallel/comm/communicator.h"
#include "parallel/comm/shared_ring.h"
#include "parallel/run/watch_roles.h"

namespace ptrain {

struct WatchdogOptions {
  double timeout_s = 300;
  WatchEvents events;        // publish and leave are called on the watchdog's thread
  std::string ring_address;  // of the ring, for the other ranks of the host; empty: they cannot see it
  double connect_s = 30;     // for all ranks to reach rank 0
  // Of tests: while it is set the thread stands still, as a stopped process does.
  const std::atomic<bool>* is_frozen = nullptr;
};

class Watchdog {
 public:
  /// A collective. hosts: of each rank. ring: outlives this.
  Watchdog(Communicator& world, const std::vector<std::string>& hosts, const OpRing& ring,
           WatchdogOptions options);
  /// Not a collective: tells the others that this rank leaves in order.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Empty where all ranks reach each other. Else what does not reach what, the same on every rank: nothing
  /// is watched then.
  const std::string& fault() const { return fault_; }

  const std::string& host_of(int rank) const { return plan_.hosts[static_cast<size_t>(rank)]; }

  /// A step is over in which this rank computed for so long, waiting not counted; NaN: not known.
  void note_step(double computed_s);
  /// Whom this rank is compared with, and how much of the stage's work it has beside them.
  void set_peers(int stage, double weight);
  /// Who was found slow since the last call. On the chief.
  std::vector<SlowRank> new_slow_ranks();

 private:
  void exchange(Communicator& world, const std::vector<std::string>& hosts);
  void connect_all(Communicator& world, double connect_s);
  void stop();
  void watch();
  void turn(double now_s);
  void sleep();
  double awake_s();
  WatchState own_state(double now_s);

  const OpRing& ring_;
  WatchdogOptions options_;
  WatchEvents events_;
  WatchPlan plan_;
  std::map<int, RingMemory> neighbours_;  // ranks of this host
  int rank_;
  std::string fault_;

  // Of the thread.
  WatchListener listener_;
  std::optional<WatchChief> chief_;
  std::optional<WatchMember> member_;
  double awake_s_ = 0, clock_s_ = -1;
  uint64_t progress_ = 0;
  double progress_s_ = 0;

  // Between the thread and others.
  std::atomic<bool> is_armed_{false}, is_connected_{false}, is_stopping_{false};
  std::atomic<bool> has_news_{false};
  std::mutex mutex_;                  // guards what follows
  std::vector<SlowRank> slow_ranks_;  // not told yet
  StepTimes step_times_;
  RankTime time_;
  std::string tried_;

  int wake_ = -1;  // an eventfd: the thread is wanted now
  std::thread thread_;
};

}  // namespace ptrain
