// Runs a schedule on paper: does it finish, how long does it take, what does it hold. Pure; costs come from
// the caller (estimated, or measured).
#pragma once

#include <string>
#include <vector>

#include "parallel/plan/schedule.h"

namespace ptrain {

/// Seconds (or any unit). Transfers cost their receiver nothing but waiting: they run beside compute.
struct Costs {
  std::vector<double> forward_s;    // [stage] of one micro
  std::vector<double> backward_s;   // [stage] of one micro, input and weights
  std::vector<double> input_share;  // [stage] of backward_s that is the input half; empty = one half
  double activation_s = 0;          // one transfer to the next stage
  double gradient_s = 0;            // one transfer to the stage before
  double hand_s = 0;  // one hand to another chunk of the position, which computes nothing meanwhile
  std::vector<std::vector<double>> reduce_s;      // [stage][bucket]; empty = nothing
  std::vector<std::vector<double>> bucket_share;  // [stage][bucket] of backward_s; empty = equal shares

  /// The same for every stage, transfers free.
  static Costs uniform(const StageMap& map, double forward_s, double backward_s);
};

/// How sends behave. ptrain's never wait; `rendezvous` shows what in-order blocking sends would do.
enum class SendMode { never_waits, rendezvous };

struct Interval {
  double begin_s = 0;
  double end_s = 0;
};

struct Report {
  bool is_complete = false;
  std::string explanation;                  // of a deadlock: who waits for whom and why; empty when complete
  double step_s = 0;                        // until the last action and the last reduction are done
  double bubble = 0;                        // share of positions * step_s in which nothing is computed
  std::vector<double> busy_s;               // [position] computing
  std::vector<double> exposed_transfer_s;   // [position] waiting for a message that is under way
  double exposed_reduce_s = 0;              // from the last compute to the last reduction
  std::vector<std::vector<int>> peak_live;  // [position][chunk] micros between forward and backward
  std::vector<std::vector<Interval>>
      intervals;  // [position][action] as executed; compute and hands have length
};

Report simulate(const Schedule& schedule, const StageMap& map, const Costs& costs,
                SendMode mode = SendMode::never_waits);

/// (p - 1) / (m + p - 1): idle share of gpipe and 1f1b with p equal stages, m micros, free transfers.
inline double textbook_bubble(int positions, int micros) {
  return static_cast<double>(positions - 1) / (micros + positions - 1);
}
/// (p - 1) / (v m + p - 1): of the interleaved schedule with v chunks a position, p dividing m.
inline double interleaved_bubble(int positions, int micros, int chunks) {
  return static_cast<double>(positions - 1) / (static_cast<double>(chunks) * micros + positions - 1);
}
/// Of zero bubble H1 with m >= p micros and the costs of one: the first position waits for (p - 1) forwards
/// and for what the inputs of the others take longer than its weights. All equal: (p - 1) / (3 m + p - 1).
inline double zero_bubble_h1_bubble(int positions, int micros, double forward = 1, double input = 1,
                                    double weights = 1) {
  const double idle = (positions - 1) * (forward + (input > weights ? input - weights : 0));
  return idle / (micros * (forward + input + weights) + idle);
}
/// (p - 1) / (6 m + p - 1): of zero bubble V with forward, input and weights of one length, m >= 2 p - 1.
inline double zero_bubble_v_bubble(int positions, int micros) {
  return static_cast<double>(positions - 1) / (6.0 * micros + positions - 1);
}

/// Time across, positions down: a cell of `F3` or `B3` (`I3`, `W3` for halves; the second of two chunks in
/// lower case) per time step, blanks where a position waits; below it what the letters mean where that is not
/// plain. Cut in the middle at `columns` characters, with a note of how much is missing. An incomplete run
/// ends with `?` where each position stands. Transfers and hands are not shown.
std::string grid(const Schedule& schedule, const StageMap& map, const Report& report, int columns = 110);

}  // namespace ptrain
