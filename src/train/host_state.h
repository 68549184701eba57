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
  /// Brings what is here to the trainer; weights() must be whole.
  void put();

  Tensor weights() const { return weights_.view(); }  // (stage layout's elements) f32
  Tensor m() const { return m_.view(); }              // (optimizer's state elements) f32, as v
  Tensor v() const { return v_.view(); }

 private:
  void put_split();

  Trainer& trainer_;
  Parts parts_;
  HostFlat weights_, m_, v_;
};

}  // namespace ptrain
