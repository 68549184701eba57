// From what every rank was last seen doing to the rank that holds the others up: pure, no sockets and no
// files. Not for finding out what ranks do (watchdog).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "parallel/comm/op_ring.h"

namespace ptrain {

/// What is known of a rank.
struct RankState {
  int rank = 0;
  std::string host;
  bool is_heard = true;   // false: nothing was ever heard of it; the rest means nothing
  bool has_left = false;  // it left the run in order
  double silent_s = 0;    // since it last answered
  double stalled_s = 0;   // since its work last made progress
  bool is_exact = false;  // ops is what it does now although it is silent: read from its memory
  OpSnapshot ops;         // as it was when it last answered
};

/// A hang: a rank has not answered for timeout_s; or one that waits for nobody has made no progress for as
/// long; or no rank has.
bool is_hang(std::span<const RankState> ranks, double timeout_s);

/// The ranks that this one waits for; none where it waits for nobody, or where everybody it waits for has
/// come too. A rank in a collective waits for the group's ranks that have entered fewer, one that waits for
/// its device for ranks that have enqueued fewer.
std::vector<int> waits_for(std::span<const RankState> ranks, int rank);

/// What a rank did, on one line: "all_reduce 57 of tensor, in backward of micro-batch 1, layer 2".
std::string doing(const OpSnapshot& ops);
/// "training, step 3"
std::string place_of(const OpSnapshot& ops);
/// {0, 1, 2, 5}: "0 to 2, 5"
std::string to_text(std::span<const int> ranks);

struct HangReport {
  struct Line {
    int rank;
    std::string host, place, doing;
    double silent_s, stalled_s;
    bool is_culprit;
    std::vector<int> waits_for;
    std::vector<std::string> before;  // what it had ended, the newest last
  };
  int rank = -1;  // that holds the others up: the first of several
  std::string host, phase;
  int64_t step = 0;
  std::string reason;       // some lines for people: who, since when, in what, who waits for it, what to do
  std::vector<Line> ranks;  // all of them
};

/// Who holds the others up: who is silent; else who is busy without progress; else who has left; else the
/// ranks of a circle that wait for each other; else those who wait although everybody has come.
HangReport judge(std::span<const RankState> ranks, double timeout_s);

}  // namespace ptrain
