// Cross-entropy on a GPU: one block a row of logits, read once and written once, 16 bytes an access. Sums
// keep what f32 would lose: compensated within a thread, f64 over the threads, always in the same order.
#include "kernels/ops/loss.h"

#include <cmath>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

constexpr int row_threads = 512;
constexpr int sum_threads = 512;

/// `width` elements of a row, const where the row is.
template <class T, int width>
using Chunk =
    std::conditional_t<std::is_const_v<T>, const Vector<std::remove_const_t<T>, width>, Vector<T, width>>;

template <int width, class T>
__device__ inline Chunk<T, width>* chunk_at(T* row, int64_t first) {
  return reinterpret_cast<Chunk<T, width>*>(row + first);
}

/// Calls body(chunk, first) for every element of a row, `first` the index of chunk.at[0]: 16 bytes at a time
/// where the address allows it, single elements before and after. Chunks of a row that is not const are
/// written back. A thread reads two of them before it works on one.
template <class T, class Body>
__device__ void for_each_chunk(T* row, int64_t V, Body body) {
  constexpr int width = vector_width<std::remove_const_t<T>>;
  const auto work = [&](auto chunk, auto* at, int64_t first) {
    body(chunk, first);
    if constexpr (!std::is_const_v<T>) *at = chunk;
  };
  const auto single = [&](int64_t i) { work(*chunk_at<1>(row, i), chunk_at<1>(row, i), i); };
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
  const int64_t before = past == 0 ? 0 : (width - past < V ? width - past : V);
  const int64_t chunks = (V - before) / width, after = before + chunks * width;
  const int64_t thread = threadIdx.x;
  if (thread < before) single(thread);
  for (int64_t i = thread; i < chunks; i += 2 * row_threads) {
    const int64_t first = before + i * width, second = first + row_threads * width;
    auto* at = chunk_at<width>(row, first);
    if (i + row_threads < chunks) {
      auto* next_at = chunk_at<width>(row, second);
      const auto chunk = *at, next = *next_at;
      work(chunk, at, first);
      work(next, next_at, second);
    } else {
      work(*at, at, first);
    }
  }
  if (after + thread < V) single(after + thread);
}

/// exp(x) for x <= 0. The short instruction errs by |x| 2^-24 of a term, less than what 16-bit logits carry.
template <class T>
__device__ inline float exp_of(float x) {
  if constexpr (sizeof(T) == 2) {
    return __expf(x);
  } else {
    return expf(x);
  }
}

/// A sum that remembers what its additions rounded away (Kahan 1965).
struct CompensatedSum {
  float sum = 0, lost = 0;

  __device__ void add(float x) {
    const float corrected = x - lost, next = sum + corrected;
    lost = (next - sum) - corrected;
    sum = next;
  }
  __device__ void multiply(float factor) { sum *= factor, lost *= factor; }
  __device__ double value() const { return static_cast<double>(sum) - static_cast<double>(lost); }
};

/// What is taken from a logit before exp(): the maximum, but 0 where all logits so far are -infinity.
__device__ inline float shift_of(float largest) {
  return largest == -INFINITY ? 0.0f : largest;
}

template <class T>
__global__ void __launch_bounds__(row_threads)
    statistics_kernel(const T* logits, int64_t stride, int64_t V, const int32_t* targets, int64_t first_id,
                      float* statistics, int64_t statistics_stride) {
  __shared__ float maxima[warp_size];
  __shared__ double sums[warp_size];
  const int64_t r = blockIdx.x;
  const T* row = logits + r * stride;
  float largest = -INFINITY;
  CompensatedSum sum;
  for_each_chunk(row, V, [&](const auto& chunk, int64_t) {
    float chunk_max = largest;
    for (const T& x : chunk.at) chunk_max = to_float(x) > chunk_max ? to_float(x) : chunk_max;
    const float shift = shift_of(chunk_max);
    if (chunk_max > largest) sum.multiply(exp_of<T>(largest - shift));
    largest = chunk_max;
    float part = 0;
    for (const T& x : chunk.at) part += exp_of<T>(to_float(x) - shift);
    sum.add(part);
  });
  const float row_max = block_reduce(largest, Max{}, maxima);
  const double factor = std::exp(static_cast<double>(largest) - static_cast<double>(shift_of(row_max)));
  const double total = block_sum(largest == -INFINITY ? sum.value() : sum.value() * factor, sums);
  if (threadIdx.x != 0) return;
  const int64_t local = targets[r] - first_id;
  float* out = statistics + r * statistics_stride;
  out[0] = row_max;
  out[1] = static_cast<float>(total);
  out[2] = local >= 0 && local < V ? to_float(row[local]) : -INFINITY;
}

__global__ void combine_kernel(const float* parts, int64_t P, int64_t R, float* statistics, int64_t stride) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r >= R) return;
  float largest = -INFINITY, target = -INFINITY;
  for (int64_t p = 0; p < P; ++p) {
    const float* part = parts + (p * R + r) * 3;
    largest = part[0] > largest ? part[0] : largest;
    target = part[2] > target ? part[2] : target;
  }
  double sum = 0;
  for (int64_t p = 0; p < P; ++p) {
    const float* part = parts + (p * R + r) * 3;
    const double shift = static_cast<double>(shift_of(largest));
    sum += static_cast<double>(part[1]) * std::exp(static_cast<double>(part[0]) - shift);
  }
  float* out = statistics + r * stride;
  out[0] = largest;
  out[1] = static_cast<float>(sum);
  out[2] = target;
}

__global__ void __launch_bounds__(sum_threads)
    sum_kernel(const float* statistics, int64_t stride, int64_t R, double* sum) {
  __shared__ double sums[warp_size];
  double mine = 0;
  for (int64_t r = threadIdx.x; r < R; r += sum_threads) {
    const float* row = statistics + r * stride;
    mine += static_cast<double>(row[0]) + std::log(static_cast<double>(row[1])) - static_cast<double>(row[2]);
  }
  const double total = block_sum(mine, sums);
  if (threadIdx.x == 0) *sum += total;
}

template <class T>
__global__ void __launch_bounds__(row_threads)
    backward_kernel(T* logits, int64_t stride, int64_t V, const float* statistics, int64_t statistics_stride,
                    const int32_t* targets, int64_t first_id, double scale) {
  const int64_t r = blockIdx.x;
  const float* row_statistics = statistics + r * statistics_stride;
  const float largest = row_statistics[0], sum = row_statistics[1];
  const float factor = static_cast<float>(scale / static_cast<double>(sum));
  const int64_t target = targets[r] - first_id;  // outside of [0, V) where it is not local
  for_each_chunk(logits + r * stride, V, [&](auto& chunk, int64_t first) {
    constexpr int width = static_cast<int>(sizeof(chunk.at) / sizeof(T));
    const int64_t mine = target - first;
    const float at_target = mine >= 0 && mine < width ? to_float(logits[r * stride + target]) : 0.0f;
    for (T& x : chunk.at) x = from_float<T>(expf(to_float(x) - largest) * factor);
    if (mine < 0 || mine >= width) return;
    // softmax - 1 of the target by itself: without cancellation where the model is sure.
    const double p =
        std::exp(static_cast<double>(at_target) - static_cast<double>(largest)) / static_cast<double>(sum);
    const T gradient = from_float<T>(static_cast<float>((p - 1) * scale));
    for (int i = 0; i < width; ++i)
      if (i == mine) chunk.at[i] = gradient;
  });
}

dim3 one_block_a_row(Tensor x) {
  return dim3(static_cast<unsigned>(x.rows()));
}

}  // namespace

void loss_statistics(Context& context, Tensor logits, Tensor targets, int64_t first_id, Tensor statistics) {
  with_element(logits.dtype, [&]<class T>() {
    launch(context, statistics_kernel<T>, one_block_a_row(logits), row_threads, 0, elements<T>(logits),
           logits.row_stride, logits.columns(), targets.as<int32_t>(), first_id, statistics.as<float>(),
           statistics.row_stride);
  });
}

void loss_combine(Context& context, Tensor parts, Tensor statistics) {
  const int64_t R = statistics.rows();
  constexpr int threads = 128;
  launch(context, combine_kernel, dim3(static_cast<unsigned>(divide_up(R, threads))), threads, 0,
         parts.as<float>(), parts.shape[0], R, statistics.as<float>(), statistics.row_stride);
}

void loss_sum(Context& context, Tensor statistics, Tensor sum) {
  launch(context, sum_kernel, dim3(1), sum_threads, 0, statistics.as<float>(), statistics.row_stride,
         statistics.rows(), sum.as<double>());
}

void loss_backward(Context& context, Tensor logits, Tensor statistics, Tensor targets, int64_t first_id,
                   double scale) {
  with_element(logits.dtype, [&]<class T>() {
    launch(context, backward_kernel<T>, one_block_a_row(logits), row_threads, 0, elements<T>(logits),
           logits.row_stride, logits.columns(), statistics.as<float>(), statistics.row_stride,
           targets.as<int32_t>(), first_id, scale);
  });
}

}  // namespace ptrain::cuda
