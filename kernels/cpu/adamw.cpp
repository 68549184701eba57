// AdamW on a CPU: one pass over the four arrays, bound by memory.
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

#include <cmath>

namespace ptrain::cpu {
namespace {

/// What stays equal over all elements of a step.
template <class T>
struct Factors {
  T gradient_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, keep, step_size, inverse_root_bias2,
      epsilon;
};

template <class T>
Factors<T> factors_of(const AdamWStep& step) {
  const double update = static_cast<double>(step.update);
  const double bias1 = 1 - std::pow(step.beta1, update), bias2 = 1 - std::pow(step.beta2, update);
  return {static_cast<T>(step.gradient_scale),
          static_cast<T>(step.beta1),
          static_cast<T>(1 - step.beta1),
          static_cast<T>(step.beta2),
          static_cast<T>(1 - step.beta2),
          static_cast<T>(1 - step.learning_rate * step.weight_decay),
          static_cast<T>(step.learning_rate / bias1),
          static_cast<T>(1 / std::sqrt(bias2)),
          static_cast<T>(step.epsilon)};
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

}  // namespace

void adamw(Context& context, const AdamWStep& step, Tensor weight, Tensor gradient, Tensor m, Tensor v) {
  with_float(weight.dtype, [&]<class T>() {
    const Factors<T> factors = factors_of<T>(step);
    T* w = weight.as<T>();
    const T* g = gradient.as<T>();
    T* first = m.as<T>();
    T* second = v.as<T>();
    parallel_ranges(context.threads, weight.numel(), min_elements_per_thread, 1024,
                    [&](int64_t begin, int64_t end) {
                      update(factors, w + begin, g + begin, first + begin, second + begin, end - begin);
                    });
  });
}

}  // namespace ptrain::cpu
