// What lies between the clocks of ranks: for times of several ranks on one axis. Not for dates, and not for
// setting a clock.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// A clock that only goes forward.
struct RankClock {
  std::string name;               // ranks whose names are equal read the same clock; empty: like no other
  std::function<double()> now_s;  // seconds since some moment
};

/// The steady clock of this process. Its name is that of the kernel that keeps it (its boot, and the time
/// namespace of the process), so ranks of one host have the same.
RankClock host_clock();

/// Time of rank 0 = own time + offset_s, right to within error_s.
struct ClockOffset {
  double offset_s = 0;
  double error_s = 0;
};

/// One question and its answer: sent and received on rank 0's clock, answered on the other's.
struct ClockRound {
  double sent_s = 0;
  double answered_s = 0;
  double received_s = 0;
};

/// Cristian's algorithm (Cristian 1989, "Probabilistic clock synchronization"): the answer was given
/// somewhere between sent and received, so the middle is wrong by at most half the round trip; the quickest
/// round says most. Example: sent 10, answered 103, received 14: offset -91, error 2. At least one round.
ClockOffset offset_of(std::span<const ClockRound> rounds);

/// A collective: the offset of this rank's clock to rank 0's. Ranks that share rank 0's clock have offset and
/// error 0; of the others that share a clock the first is asked, `rounds` times. Clocks drift (a steady clock
/// by some 1e-5): what must stay true is to be asked for again.
ClockOffset clock_offset(Communicator& world, const RankClock& clock, int rounds = 16);

}  // namespace ptrain
