#include "src/train/step_vote.h"

#include <array>

namespace ptrain {

StepVote over_ranks(Communicator& world, const StepVote& mine) {
  // All as the largest over ranks: the least is the largest of what is turned round.
  std::array<int64_t, 3> words = {mine.is_stop_wanted, mine.save.has_failed, -mine.save.finished};
  world.all_reduce(Tensor(words.data(), {std::ssize(words)}, DType::i64), Reduce::max);
  return {.is_stop_wanted = words[0] != 0, .save = {.finished = -words[2], .has_failed = words[1] != 0}};
}

}  // namespace ptrain
