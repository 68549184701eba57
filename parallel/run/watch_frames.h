// What watchdogs tell each other: the kinds of frames and how a rank's state travels in them.
#pragma once

#include <array>

#include "parallel/run/hang_report.h"
#include "parallel/run/slow_rank.h"
#include "parallel/run/watch_link.h"

namespace ptrain {

enum WatchFrame : uint32_t {
  // From a member to the chief.
  watch_hello = 1,  // WatchKey, rank: first of all
  watch_beat,       // state without what has ended
  watch_state,      // whole state: the answer to watch_collect, or a member that has lost its chief
  watch_neighbour,  // whole state of a silent rank of the same host, read from its memory
  watch_bye,        // leaves in order; from the chief too
  // From the chief to a member.
  watch_welcome,  // WatchKey
  watch_ack,      // heard; the chief's own state
  watch_collect,  // something is wrong: whole states, please, and of these silent ranks
  watch_calm,     // nothing was wrong
  watch_leave,    // the report is written
};

/// Drawn by rank 0 for each run: tells its ranks from whoever else connects to a port.
using WatchKey = std::array<uint64_t, 2>;

/// What a rank says of itself, or of a neighbour.
struct WatchState {
  int32_t rank = -1;
  double stalled_s = 0;
  RankTime time;
  OpSnapshot ops;
};

enum class Detail { open, all };
FrameWriter to_frame(const WatchState& state, Detail detail);
/// Nothing where the bytes are not a state.
std::optional<WatchState> to_state(const Frame& frame);

}  // namespace ptrain
