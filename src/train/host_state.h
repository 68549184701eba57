// A trainer's weights and moments on the host in f32, for files: what is saved from there and loaded to there
// is the same for every device and precision.
#pragma once

#include "src/model/host_flat.h"
#include "src/train/trainer.h"

namespace ptrain {

class HostState {
 public:
  enum class Parts { weights, weights_and_moments };

  explicit HostState(Trainer& trainer, Parts parts = Parts::weights_and_moments);

  /// Brings the trainer's state here. weights() holds master values on the rank's own segments (see
  /// Optimizer), elsewhere what the layers read.
  void get();
  /// Brings what is here to the trainer; all that the rank holds must be there.
  void put();

  /// f32, what the rank holds of the layout's elements: all, or under ZeRO-3 those of its segments.
  const FlatMemory& weights() const { return map_; }
  /// Takes over what the rank holds of a weight; values: its whole local box, f32.
  void set(const PlacedWeight& weight, Tensor values) const;
  Tensor m() const { return m_.view(); }  // (optimizer's state elements) f32, as v
  Tensor v() const { return v_.view(); }

 private:
  void put_split();

  Trainer& trainer_;
  Parts parts_;
  HostFlat weights_, m_, v_;
  FlatMemory map_;
};

}  // namespace ptrain
