#include "src/train/step_vote.h"

#include <array>

namespace ptrain {

StepVote over_ranks(Communicator& world, const StepVote& mine) {
  // All as the largest over ranks: the least is the largest of what is turned round.
  std::array<int64_t, 4> words = {mine.is_stop_wanted, mine.is_state_damaged, mine.save.has_failed,
                                  -mine.save.finished};
  world.all_reduce(Tensor(words.data(), {std::ssize(words)}, DType::i64), Reduce::max);
  return {.is_stop_wanted = words[0] != 0,
          .is_state_damaged = words[1] != 0,
          .save = {.finished = -words[3], .has_failed = words[2] != 0}};
}

}  // namespace ptrain
