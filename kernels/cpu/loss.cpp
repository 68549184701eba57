// Cross-entropy on a CPU. Sums over the vocabulary run in f64.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

template <class S>
Wide<S> row_max(const S* x, int64_t V) {
  Wide<S> largest = -std::numeric_limits<Wide<S>>::infinity();
#pragma omp simd reduction(max : largest)
  for (int64_t v = 0; v < V; ++v) largest = widen(x[v]) > largest ? widen(x[v]) : largest;
  return largest;
}

template <class S>
double sum_of_exp(const S* x, Wide<S> shift, int64_t V) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < V; ++v) sum += static_cast<double>(vector_exp(widen(x[v]) - shift));
  return sum;
}

}  // namespace

void loss_statistics(Context& context, Tensor logits, Tensor targets, int64_t first_id, Tensor statistics) {
  with_storage(logits.dtype, [&]<class S>() {
    using T = Wide<S>;
    const int32_t* target = targets.as<int32_t>();
    T* out = statistics.as<T>();
    const int64_t V = logits.columns();
    parallel_rows(context.threads, logits.rows(), V, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const S* row = logits.as<S>() + r * logits.row_stride;
        const int64_t local = target[r] - first_id;
        const T largest = row_max(row, V);
        T* stats = out + r * statistics.row_stride;
        stats[0] = largest;
        stats[1] = static_cast<T>(sum_of_exp(row, largest, V));
        stats[2] = local >= 0 && local < V ? widen(row[local]) : -std::numeric_limits<T>::infinity();
      }
    });
  });
}

void loss_combine(Context&, Tensor parts, Tensor statistics) {
  with_float(statistics.dtype, [&]<class T>() {
    const int64_t P = parts.shape[0], R = statistics.rows();
    const T* in = parts.as<T>();
    for (int64_t r = 0; r < R; ++r) {
      T largest = -std::numeric_limits<T>::infinity(), target = largest;
      for (int64_t p = 0; p < P; ++p) {
        const T* part = in + (p * R + r) * 3;
        largest = std::max(largest, part[0]);
        target = std::max(target, part[2]);
      }
      double sum = 0;
      for (int64_t p = 0; p < P; ++p) {
        const T* part = in + (p * R + r) * 3;
        sum += static_cast<double>(part[1]) *
               std::exp(static_cast<double>(part[0]) - static_cast<double>(largest));
      }
      T* stats = statistics.as<T>() + r * statistics.row_stride;
      stats[0] = largest;
      stats[1] = static_cast<T>(sum);
      stats[2] = target;
    }
  });
}

void loss_sum(Context&, Tensor statistics, Tensor sum) {
  with_float(statistics.dtype, [&]<class T>() {
    double rows = 0;
    for (int64_t r = 0; r < statistics.rows(); ++r) {
      const T* stats = statistics.as<T>() + r * statistics.row_stride;
      rows += static_cast<double>(stats[0]) + std::log(static_cast<double>(stats[1])) -
              static_cast<double>(stats[2]);
    }
    *sum.as<double>() += rows;
  });
}

void loss_backward(Context& context, Tensor logits, Tensor statistics, Tensor targets, int64_t first_id,
                   double scale) {
  with_storage(logits.dtype, [&]<class S>() {
    using T = Wide<S>;
    const int32_t* target = targets.as<int32_t>();
    const int64_t V = logits.columns();
    parallel_rows(context.threads, logits.rows(), V, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        S* row = logits.as<S>() + r * logits.row_stride;
        const T* stats = statistics.as<T>() + r * statistics.row_stride;
        const T largest = stats[0];
        const T factor = static_cast<T>(scale / static_cast<double>(stats[1]));
        const int64_t local = target[r] - first_id;
        const bool is_local = local >= 0 && local < V;
        // softmax - 1 of the target by itself: without cancellation where the model is sure.
        const T at_target = is_local ? widen(row[local]) : T{0};
#pragma omp simd
        for (int64_t v = 0; v < V; ++v) row[v] = convert<S>(vector_exp(widen(row[v]) - largest) * factor);
        if (is_local) {
          const double p = std::exp(static_cast<double>(at_target) - static_cast<double>(largest)) /
                           static_cast<double>(stats[1]);
          row[local] = convert<S>((p - 1) * scale);
        }
      }
    });
  });
}

}  // namespace ptrain::cpu
