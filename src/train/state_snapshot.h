// A copy on the host of what a rank's optimizer owns, as it was between two steps: to be written to files
// while training goes on, and to go back to.
#pragma once

#include <vector>

#include "src/io/checkpoint.h"
#include "src/train/trainer.h"

namespace ptrain {

class StateSnapshot {
 public:
  /// Takes the memory, once: bytes_of(trainer). Where the trainer computes on a GPU it is pinned. It is
  /// touched, so that no step waits for pages. Errors: ExitCode::resources.
  explicit StateSnapshot(Trainer& trainer);

  /// Three f32 numbers for each element that this rank updates: its weight, in master precision, and its
  /// moments.
  static int64_t bytes_of(const Trainer& trainer);

  /// Copies the state as it is after `step`; to be called between steps.
  void take(int64_t step);
  /// A collective, between steps: the state becomes what was taken, to the bit.
  void put_back();
  /// Of what is held; 0: nothing yet.
  int64_t step() const { return step_; }
  bool is_taken() const { return step_ > 0; }

  /// What this rank saves of it, see slices_to_save.
  std::vector<StateSlice> slices() const;

 private:
  void take_weights();
  void put_back_weights();

  Trainer& trainer_;
  Buffer memory_, staging_;
  Tensor weights_, m_, v_;  // (optimizer's state elements) f32 each
  FlatMemory map_;
  int64_t step_ = 0;
};

}  // namespace ptrain
