// AdamW on a GPU: one pass over weight, master, gradient and moments, bound by memory; 4 elements a thread
// where the addresses allow it. The products that are added to are named fused ones, so that every kind of
// master takes the same roundings.
#include "kernels/ops/adamw.h"

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/twins.h"
#include "kernels/ops/stochastic.h"

namespace ptrain::cuda {
namespace {

constexpr int threads = 256;

/// What stays equal over all elements of a step.
struct Factors {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, keep, step_size, inverse_root_bias2, epsilon;
};

Factors factors_of(const AdamWStep& step) {
  const double update = static_cast<double>(step.update);
  const double bias1 = 1 - std::pow(step.beta1, update), bias2 = 1 - std::pow(step.beta2, update);
  return {static_cast<float>(step.beta1),
          static_cast<float>(1 - step.beta1),
          static_cast<float>(step.beta2),
          static_cast<float>(1 - step.beta2),
          static_cast<float>(1 - step.learning_rate * step.weight_decay),
          static_cast<float>(step.learning_rate / bias1),
          static_cast<float>(1 / std::sqrt(bias2)),
          static_cast<float>(step.epsilon)};
}

/// The new value of one element; its moments become theirs.
__device__ inline float updated(const Factors& f, float value, float gradient, float& m, float& v) {
  m = fmaf(f.beta1, m, f.one_minus_beta1 * gradient);
  v = fmaf(f.beta2, v, f.one_minus_beta2 * (gradient * gradient));
  const float step = f.step_size * m / fmaf(sqrtf(v), f.inverse_root_bias2, f.epsilon);
  return fmaf(f.keep, value, -step);
}

__device__ inline float joined(uint16_t high, int16_t low) {
  return std::bit_cast<float>((static_cast<uint32_t>(high) << 16) +
                              static_cast<uint32_t>(static_cast<int32_t>(low)));
}

/// The nearest bf16 (away from zero on a tie, so that what is left fits 16 signed bits), and what is left.
__device__ inline void split(float value, uint16_t& high, int16_t& low) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), nearest = (bits + 0x8000u) >> 16;
  high = static_cast<uint16_t>(nearest);
  low = static_cast<int16_t>(static_cast<int32_t>(bits - (nearest << 16)));
}

/// Where the value lies that the update reads and writes. Each kind: value_of(weight, master) and
/// store(value, index, weight, master).
template <class W>
struct WeightItself {
  using Weight = W;
  using Master = W;
  static constexpr bool has_master = false;
  uint64_t seed;

  __device__ float value_of(W weight, W) const { return to_float(weight); }
  __device__ void store(float value, int64_t index, W& weight, W&) const {
    if constexpr (sizeof(W) == 4) {
      weight = value;
    } else {
      const uint32_t random = rounding_bits(seed, static_cast<uint64_t>(index));
      weight = std::bit_cast<W>(std::is_same_v<W, bf16> ? stochastic_bf16(value, random)
                                                        : stochastic_f16(value, random));
    }
  }
};
template <class W>
struct FloatMaster {
  using Weight = W;
  using Master = float;
  static constexpr bool has_master = true;

  __device__ float value_of(W, float master) const { return master; }
  __device__ void store(float value, int64_t, W& weight, float& master) const {
    master = value;
    weight = from_float<W>(value);
  }
};
struct LowBits {
  using Weight = uint16_t;  // the bits of a bf16
  using Master = int16_t;
  static constexpr bool has_master = true;

  __device__ float value_of(uint16_t weight, int16_t low) const { return joined(weight, low); }
  __device__ void store(float value, int64_t, uint16_t& weight, int16_t& low) const {
    split(value, weight, low);
  }
};

template <class Kind, class G>
struct Arrays {
  typename Kind::Weight* weight;
  typename Kind::Master* master;
  const G* gradient;
  float *m, *v;
};

template <int width, class T>
__device__ Vector<T, width>& run_at(T* data, int64_t first) {
  return *reinterpret_cast<Vector<T, width>*>(data + first);
}
template <int width, class T>
__device__ const Vector<T, width>& run_at(const T* data, int64_t first) {
  return *reinterpret_cast<const Vector<T, width>*>(data + first);
}

/// Elements [first, first + width).
template <int width, class Kind, class G>
__device__ void update_run(const Factors& f, float scale, Kind kind, const Arrays<Kind, G>& a,
                           int64_t first) {
  auto weight = run_at<width>(a.weight, first);
  Vector<typename Kind::Master, width> master{};
  if constexpr (Kind::has_master) master = run_at<width>(a.master, first);
  const auto gradient = run_at<width>(a.gradient, first);
  auto m = run_at<width>(a.m, first), v = run_at<width>(a.v, first);
  for (int i = 0; i < width; ++i) {
    const float old = kind.value_of(weight.at[i], master.at[i]);
    const float value = updated(f, old, to_float(gradient.at[i]) * scale, m.at[i], v.at[i]);
    kind.store(value, first + i, weight.at[i], master.at[i]);
  }
  run_at<width>(a.weight, first) = weight;
  if constexpr (Kind::has_master) run_at<width>(a.master, first) = master;
  run_at<width>(a.m, first) = m;
  run_at<width>(a.v, first) = v;
}

/// Calls body.operator()<n>(first) for runs of n = `width` elements, and of one where less is left.
template <int width, class Body>
__device__ void for_each_run(int64_t count, Body body) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * width;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * width; i < count;
       i += step) {
    if (i + width <= count) {
      body.template operator()<width>(i);
    } else {
      for (int64_t j = i; j < count; ++j) body.template operator()<1>(j);
    }
  }
}

template <int width, class Kind, class G>
__global__ void __launch_bounds__(threads)
    adamw_kernel(Factors f, Kind kind, const double* gradient_scale, Arrays<Kind, G> a, int64_t count) {
  if (*gradient_scale != *gradient_scale) return;  // not a number: the step is skipped
  const float scale = static_cast<float>(*gradient_scale);
  for_each_run<width>(count, [&]<int n>(int64_t first) { update_run<n>(f, scale, kind, a, first); });
}

template <int width>
__global__ void join_kernel(const uint16_t* high, const int16_t* low, float* wide, int64_t count) {
  for_each_run<width>(count, [&]<int n>(int64_t first) {
    const auto from = run_at<n>(high, first);
    Vector<int16_t, n> rest{};
    if (low != nullptr) rest = run_at<n>(low, first);
    Vector<float, n> to;
    for (int i = 0; i < n; ++i) to.at[i] = joined(from.at[i], rest.at[i]);
    run_at<n>(wide, first) = to;
  });
}

template <int width>
__global__ void split_kernel(const float* wide, uint16_t* high, int16_t* low, int64_t count) {
  for_each_run<width>(count, [&]<int n>(int64_t first) {
    const auto from = run_at<n>(wide, first);
    Vector<uint16_t, n> to;
    Vector<int16_t, n> rest;
    for (int i = 0; i < n; ++i) split(from.at[i], to.at[i], rest.at[i]);
    run_at<n>(high, first) = to;
    if (low != nullptr) run_at<n>(low, first) = rest;
  });
}

__global__ void gradient_scale_kernel(const double* sums, double clip, double loss_scale, double* scale) {
  const double loss = sums[0], norm = std::sqrt(sums[1]) / loss_scale;
  const double clipped = clip > 0 ? fmin(1.0, clip / (norm + 1e-6)) : 1.0;
  const bool is_good = norm < largest_norm && isfinite(loss);
  *scale = is_good ? clipped / loss_scale : std::numeric_limits<double>::quiet_NaN();
}

/// Whether 4 elements at a time may be read from each tensor; an empty one agrees to all.
template <class... Tensors>
bool is_aligned(Tensors... tensors) {
  return ((reinterpret_cast<uintptr_t>(tensors.data) % (4 * size_bytes(tensors.dtype)) == 0) && ...);
}

/// Calls body.operator()<4>() or <1>().
template <class Body>
void with_width(bool is_wide, const Body& body) {
  if (is_wide) {
    body.template operator()<4>();
  } else {
    body.template operator()<1>();
  }
}

dim3 blocks_for(int64_t count, int width) {
  return dim3(static_cast<unsigned>(std::min<int64_t>(divide_up(count, threads * width), 132 * 16)));
}

/// The tensors of a step.
struct Step {
  Factors factors;
  Tensor scale, weight, master, gradient, m, v;
};

template <class G, class Kind>
void run(Context& context, const Step& s, Kind kind) {
  const int64_t count = s.weight.numel();
  const Arrays<Kind, G> arrays{elements<typename Kind::Weight>(s.weight),
                               static_cast<typename Kind::Master*>(s.master.data), elements<G>(s.gradient),
                               s.m.as<float>(), s.v.as<float>()};
  with_width(is_aligned(s.weight, s.master, s.gradient, s.m, s.v), [&]<int width>() {
    launch(context, adamw_kernel<width, Kind, G>, blocks_for(count, width), threads, 0, s.factors, kind,
           s.scale.as<double>(), arrays, count);
  });
}

template <class W, class G>
void run_with_master(Context& context, const Step& s, uint64_t seed) {
  if (!s.master) return run<G>(context, s, WeightItself<W>{seed});
  if constexpr (sizeof(W) == 2) {
    if (s.master.dtype == DType::f32) return run<G>(context, s, FloatMaster<W>{});
  }
  if constexpr (std::is_same_v<W, bf16>) {
    if (s.master.dtype == DType::i16) return run<G>(context, s, LowBits{});
  }
  fail(ExitCode::defect, "adamw: a master of {} for a weight of {}", name_of(s.master.dtype),
       name_of(s.weight.dtype));
}

}  // namespace

void gradient_scale(Context& context, Tensor sums, double clip, double loss_scale, Tensor scale) {
  launch(context, gradient_scale_kernel, dim3(1), 1, 0, sums.as<double>(), clip, loss_scale,
         scale.as<double>());
}

void adamw(Context& context, const AdamWStep& step, Tensor scale, Tensor weight, Tensor master,
           Tensor gradient, Tensor m, Tensor v) {
  const Step s{factors_of(step), scale, weight, master, gradient, m, v};
  with_element(weight.dtype, [&]<class W>() {
    if (gradient.dtype == weight.dtype) return run_with_master<W, W>(context, s, step.seed);
    run_with_master<W, float>(context, s, step.seed);
  });
}

void join_master(Context& context, Tensor weight, Tensor low, Tensor wide) {
  with_width(is_aligned(weight, low, wide), [&]<int width>() {
    launch(context, join_kernel<width>, blocks_for(wide.numel(), width), threads, 0,
           elements<uint16_t>(weight), low ? low.as<int16_t>() : nullptr, wide.as<float>(), wide.numel());
  });
}

void split_master(Context& context, Tensor wide, Tensor weight, Tensor low) {
  with_width(is_aligned(wide, weight, low), [&]<int width>() {
    launch(context, split_kernel<width>, blocks_for(wide.numel(), width), threads, 0, wide.as<float>(),
           elements<uint16_t>(weight), low ? low.as<int16_t>() : nullptr, wide.numel());
  });
}

}  // namespace ptrain::cuda
