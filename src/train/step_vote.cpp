#include "src/train/step_vote.h"

#include <array>

namespace ptrain {

StepVote over_ranks(Communicator& world, const StepVote& mine) {
  // Sums of small numbers: of the imbalance its two halves, whose carry is added at the end.
  constexpr uint64_t half = 0xFFFFFFFF;
  std::array<int64_t, 6> words = {mine.is_stop_wanted,
                                  mine.is_state_damaged,
                                  mine.save.busy,
                                  mine.save.failed,
                                  static_cast<int64_t>(mine.imbalance & half),
                                  static_cast<int64_t>(mine.imbalance >> 32)};
  world.all_reduce(Tensor(words.data(), {std::ssize(words)}, DType::i64));
  return {.is_stop_wanted = words[0] > 0,
          .is_state_damaged = words[1] > 0,
          .save = {.busy = words[2], .failed = words[3]},
          .imbalance = static_cast<uint64_t>(words[4]) + (static_cast<uint64_t>(words[5]) << 32)};
}

}  // namespace ptrain
