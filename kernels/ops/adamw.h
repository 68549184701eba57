// The optimizer's arithmetic. Loshchilov, Hutter: "Decoupled weight decay regularization" (2019).
#pragma once

#include "kernels/ops/context.h"

namespace ptrain {

/// A norm of gradients from which on no update is made: their squares, which become moments, leave f32.
inline constexpr double largest_norm = 1e18;

struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0;  // 0 for tensors that do not decay
  int64_t update = 1;       // counts updates from 1, for the bias correction
  uint64_t seed = 0;        // of stochastic rounding: another one for every step and run of elements
};

/// What multiplies the gradients before the update: 1 / loss_scale, and where `clip` > 0 also min(1, clip /
/// (norm + 1e-6)) with norm = sqrt(square sum) / loss_scale. NaN where the loss is not finite or the norm is
/// not below largest_norm: then the update changes nothing.
/// sums: (2) f64, loss and square sum of the gradients   scale: (1) f64
void gradient_scale(Context& context, Tensor sums, double clip, double loss_scale, Tensor scale);

/// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = w (1 - lr wd) - lr mhat / (sqrt(vhat) + eps), with
/// g = gradient * scale. Nothing changes where scale is NaN.
/// weight, gradient, m, v: contiguous, equal sizes   m, v: f32, or f64 for f64 weights   scale: (1) f64
/// gradient: the weight's dtype or that of m
/// master: what the update reads and writes in place of the weight, which becomes its nearest value:
///   f32   the master itself
///   i16   for a bf16 weight: what its 16 bits leave out of the f32 bits of the master, master bits =
///         (weight bits << 16) + low, so that both together are an f32 master in 4 bytes
///   empty the weight is its own master; a bf16 or f16 weight is then rounded stochastically by (seed, index)
void adamw(Context& context, const AdamWStep& step, Tensor scale, Tensor weight, Tensor master,
           Tensor gradient, Tensor m, Tensor v);

/// wide = the f32 values of a bf16 weight and its low bits (empty: of the weight alone); and the reverse.
/// weight: bf16   low: i16   wide: f32
void join_master(Context& context, Tensor weight, Tensor low, Tensor wide);
void split_master(Context& context, Tensor wide, Tensor weight, Tensor low);

}  // namespace ptrain
