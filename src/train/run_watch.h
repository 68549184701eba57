// What watches over a run: its ring of operations, its watchdog, and what they say when a rank hangs or is
// slow. Not for finding that out (parallel/run).
#pragma once

#include <filesystem>
#include <memory>

#include "parallel/comm/shared_ring.h"
#include "parallel/run/watchdog.h"
#include "src/train/config_load.h"
#include "src/train/trainer.h"

namespace ptrain {

class RunWatch {
 public:
  /// The ring is on from here on.
  explicit RunWatch(Communicator& world);
  /// Not a collective: a rank that leaves, in order or by an error, is no longer watched.
  ~RunWatch();
  RunWatch(const RunWatch&) = delete;
  RunWatch& operator=(const RunWatch&) = delete;

  /// A collective: from here on a hang ends the run with 66 and a report in <output>/failure.json and on
  /// stderr; unless train.hang_timeout_s is 0. Errors (resources, of all ranks): TCP between the hosts does
  /// not work and the key was set; where it was not, a warning is all.
  void start(const LoadedConfig& loaded, std::span<const std::string> hosts);
  /// A collective, at the end: a rank that never comes here is found too.
  void finish();

  /// What the run is busy with; Training counts steps as progress, all else signs of life.
  void enter(std::string_view name) { ring_.set_phase(name, name != "training"); }
  void begin_step(int64_t step) { ring_.set_step(step); }
  /// Whom this rank's times are compared with.
  void set_peers(const Trainer& trainer);
  void end_step(const StepResult& result);

 private:
  Communicator& world_;
  SharedRing shared_;
  OpRing& ring_ = shared_.ring();
  std::unique_ptr<Watchdog> watchdog_;
};

/// <output>/failure.json of a hang: as of other failures, and what every rank did.
std::string failure_text(const HangReport& report);

}  // namespace ptrain
