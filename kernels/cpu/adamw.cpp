// AdamW on a CPU: one pass over the four arrays, bound by memory.
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"
#include "kernels/ops/stochastic.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace ptrain::cpu {
namespace {

/// What stays equal over all elements of a step.
template <class T>
struct Factors {
  T gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, keep, step_size, inverse_root_bias2,
      epsilon;
};

template <class T>
Factors<T> factors_of(const AdamWStep& step, double gradient_scale) {
  const double update = static_cast<double>(step.update);
  const double bias1 = 1 - std::pow(step.beta1, update), bias2 = 1 - std::pow(step.beta2, update);
  return {static_cast<T>(gradient_scale),
          static_cast<T>(step.beta1),
          static_cast<T>(1 - step.beta1),
          static_cast<T>(step.beta2),
          static_cast<T>(1 - step.beta2),
          static_cast<T>(1 - step.learning_rate * step.weight_decay),
          static_cast<T>(step.learning_rate / bias1),
          static_cast<T>(1 / std::sqrt(bias2)),
          static_cast<T>(step.epsilon)};
}

float join_value(uint16_t high, int16_t low) {
  return std::bit_cast<float>((static_cast<uint32_t>(high) << 16) +
                              static_cast<uint32_t>(static_cast<int32_t>(low)));
}

/// The nearest bf16 (away from zero on a tie, so that what is left fits 16 signed bits), and what is left.
void split_value(float value, uint16_t& high, int16_t* low) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest = (bits + 0x8000u) >> 16;
  high = static_cast<uint16_t>(nearest);
  if (low != nullptr) *low = static_cast<int16_t>(static_cast<int32_t>(bits - (nearest << 16)));
}

template <class T>
void update(const Factors<T> f, T* __restrict w, const T* __restrict g, T* __restrict m, T* __restrict v,
            int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T gradient = g[i] * f.gradient_scale;
    m[i] = f.beta1 * m[i] + f.one_minus_beta1 * gradient;
    v[i] = f.beta2 * v[i] + f.one_minus_beta2 * (gradient * gradient);
    w[i] = f.keep * w[i] - f.step_size * m[i] / (std::sqrt(v[i]) * f.inverse_root_bias2 + f.epsilon);
  }
}

/// Where the f32 values lie that the update of a 16-bit weight reads and writes. Each kind:
/// values(first, count, room): the values of a run, in `room` or where they are kept anyway;
/// store(values, first, count): what becomes of them.
template <class S>
struct FloatMaster {
  S* weight;
  float* master;

  float* values(int64_t first, int64_t, float*) const { return master + first; }
  void store(const float* values, int64_t first, int64_t count) const {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) weight[first + i] = convert<S>(values[i]);
  }
};

struct SplitMaster {
  BFloat16* weight;
  int16_t* low;

  float* values(int64_t first, int64_t count, float* room) const {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) room[i] = join_value(weight[first + i].bits, low[first + i]);
    return room;
  }
  void store(const float* values, int64_t first, int64_t count) const {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) split_value(values[i], weight[first + i].bits, low + first + i);
  }
};

template <class S>
struct WeightItself {
  S* weight;
  uint64_t seed;

  float* values(int64_t first, int64_t count, float* room) const {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) room[i] = widen(weight[first + i]);
    return room;
  }
  void store(const float* values, int64_t first, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t random = rounding_bits(seed, static_cast<uint64_t>(first + i));
      weight[first + i] = {std::is_same_v<S, BFloat16> ? stochastic_bf16(values[i], random)
                                                       : stochastic_f16(values[i], random)};
    }
  }
};

/// The update of f32, run by run, around the values that a kind of master keeps: every kind has its bits.
/// G: elements of the gradient
template <class G, class Master>
void update_narrow(Context& context, const Factors<float>& factors, const Master& master, Tensor gradient,
                   Tensor m, Tensor v) {
  constexpr int64_t run = 1024;
  const G* g = gradient.as<G>();
  float *first = m.as<float>(), *second = v.as<float>();
  parallel_ranges(context.threads, m.numel(), min_elements_per_thread, run, [&](int64_t begin, int64_t end) {
    float room[run], gradients[run];
    for (int64_t at = begin; at < end; at += run) {
      const int64_t count = std::min(run, end - at);
      float* values = master.values(at, count, room);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) gradients[i] = widen(g[at + i]);
      update(factors, values, gradients, first + at, second + at, count);
      master.store(values, at, count);
    }
  });
}

/// A weight of 16 bits.
template <class S, class G>
void update_with_master(Context& context, const Factors<float>& factors, uint64_t seed, Tensor weight,
                        Tensor master, Tensor gradient, Tensor m, Tensor v) {
  if (!master)
    return update_narrow<G>(context, factors, WeightItself<S>{weight.as<S>(), seed}, gradient, m, v);
  if (master.dtype == DType::f32) {
    const FloatMaster<S> kept{weight.as<S>(), master.as<float>()};
    return update_narrow<G>(context, factors, kept, gradient, m, v);
  }
  if constexpr (std::is_same_v<S, BFloat16>) {
    const SplitMaster kept{weight.as<BFloat16>(), master.as<int16_t>()};
    return update_narrow<G>(context, factors, kept, gradient, m, v);
  }
  fail(ExitCode::defect, "adamw: a master of {} for a weight of {}", name_of(master.dtype),
       name_of(weight.dtype));
}

}  // namespace

void gradient_scale(Context&, Tensor sums, double clip, double loss_scale, Tensor scale) {
  const double loss = sums.as<double>()[0], norm = std::sqrt(sums.as<double>()[1]) / loss_scale;
  const double clipped = clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0;
  *scale.as<double>() = norm < largest_norm && std::isfinite(loss) ? clipped / loss_scale
                                                                   : std::numeric_limits<double>::quiet_NaN();
}

void adamw(Context& context, const AdamWStep& step, Tensor scale, Tensor weight, Tensor master,
           Tensor gradient, Tensor m, Tensor v) {
  const double gradient_scale = *scale.as<double>();
  if (std::isnan(gradient_scale)) return;
  with_gradient(weight.dtype, gradient.dtype, [&]<class S, class G>() {
    using T = Wide<S>;
    const Factors<T> factors = factors_of<T>(step, gradient_scale);
    if constexpr (is_narrow<S>) {
      update_with_master<S, G>(context, factors, step.seed, weight, master, gradient, m, v);
    } else {
      T* w = weight.as<T>();
      const T* g = gradient.as<T>();
      T* first = m.as<T>();
      T* second = v.as<T>();
      parallel_ranges(context.threads, weight.numel(), min_elements_per_thread, 1024,
                      [&](int64_t begin, int64_t end) {
                        update(factors, w + begin, g + begin, first + begin, second + begin, end - begin);
                      });
    }
  });
}

void join_master(Context& context, Tensor weight, Tensor low, Tensor wide) {
  const auto* high = static_cast<const uint16_t*>(weight.data);
  const int16_t* rest = low ? low.as<int16_t>() : nullptr;
  float* out = wide.as<float>();
  parallel_ranges(context.threads, wide.numel(), min_elements_per_thread, 1024,
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      out[i] = join_value(high[i], rest == nullptr ? int16_t{0} : rest[i]);
                    }
                  });
}

void split_master(Context& context, Tensor wide, Tensor weight, Tensor low) {
  const float* in = wide.as<float>();
  auto* high = static_cast<uint16_t*>(weight.data);
  int16_t* rest = low ? low.as<int16_t>() : nullptr;
  parallel_ranges(context.threads, wide.numel(), min_elements_per_thread, 1024,
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i)
                      split_value(in[i], high[i], rest == nullptr ? nullptr : rest + i);
                  });
}

}  // namespace ptrain::cpu
