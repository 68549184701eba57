// Attention of one new token a sequence on a CPU: bound by reading the cache. Not for prefill: that is
// attention_forward.
#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

/// scores[s] = q . row key + s of the head, for one register of keys; those from `keys` on repeat the last.
template <class S>
void score_keys(const Wide<S>* q, Head<const S> k, int64_t key, int64_t keys, int64_t D, Wide<S>* scores) {
  using T = Wide<S>;
  const S* rows[lanes<T>];
  for (int64_t s = 0; s < lanes<T>; ++s) rows[s] = k.row(key + std::min(s, keys - 1));
  Vector<T> partial[lanes<T>] = {};
  int64_t d = 0;
  for (; d + lanes<T> <= D; d += lanes<T>) {
    const Vector<T> query = load(q + d);
    for (int64_t s = 0; s < lanes<T>; ++s) partial[s] += query * load_wide(rows[s] + d);
  }
  // Lane s of the sum of the transposed registers is the sum over the lanes of register s.
  exchange_blocks<T, lanes<T> / 2>(partial);
  Vector<T> sums = partial[0];
  for (int64_t s = 1; s < lanes<T>; ++s) sums += partial[s];
  store(scores, sums);
  for (; d < D; ++d) {
    for (int64_t s = 0; s < lanes<T>; ++s) scores[s] += q[d] * widen(rows[s][d]);
  }
}

/// out += sum over keys of weights[s] times row key + s of the head, four rows at a time.
template <class S>
void add_weighted_rows(const Wide<S>* weights, Head<const S> v, int64_t key, int64_t keys, int64_t D,
                       Wide<S>* __restrict out) {
  using T = Wide<S>;
  int64_t s = 0;
  for (; s + 4 <= keys; s += 4) {
    const S *a = v.row(key + s), *b = v.row(key + s + 1), *c = v.row(key + s + 2), *e = v.row(key + s + 3);
    const T* w = weights + s;
#pragma omp simd
    for (int64_t d = 0; d < D; ++d)
      out[d] += (w[0] * widen(a[d]) + w[1] * widen(b[d])) + (w[2] * widen(c[d]) + w[3] * widen(e[d]));
  }
  for (; s < keys; ++s) {
    const S* row = v.row(key + s);
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) out[d] += weights[s] * widen(row[d]);
  }
}

/// One query against keys begin .. end - 1: out = softmax of the scaled scores, times the values.
template <class S>
void decode_head(const S* query, Head<const S> k, Head<const S> v, int64_t begin, int64_t end, int64_t D,
                 Wide<S> scale, S* result) {
  using T = Wide<S>;
  alignas(64) T scores[tile];
  alignas(64) T q[max_head_size];
  alignas(64) T out[max_head_size];
  for (int64_t d = 0; d < D; ++d) q[d] = widen(query[d]);
  T largest = -std::numeric_limits<T>::infinity();
  double sum = 0;
  std::fill_n(out, D, T{0});
  for (int64_t key = begin; key < end; key += tile) {
    const int64_t keys = std::min(tile, end - key);
    for (int64_t s = 0; s < keys; s += lanes<T>) score_keys<S>(q, k, key + s, keys - s, D, scores + s);
    const T before = largest;
    for (int64_t s = 0; s < keys; ++s) {
      scores[s] *= scale;
      largest = std::max(largest, scores[s]);
    }
    if (largest != before) {
      const T shrink = vector_exp(before - largest);
      for (int64_t d = 0; d < D; ++d) out[d] *= shrink;
      sum *= static_cast<double>(shrink);
    }
#pragma omp simd
    for (int64_t s = 0; s < tile; ++s) scores[s] = s < keys ? vector_exp(scores[s] - largest) : T{0};
    for (int64_t s = 0; s < keys; ++s) sum += static_cast<double>(scores[s]);
    add_weighted_rows<S>(scores, v, key, keys, D, out);
  }
  const T factor = static_cast<T>(1 / sum);
  for (int64_t d = 0; d < D; ++d) result[d] = convert<S>(out[d] * factor);
}

}  // namespace

void attention_decode(Context& context, const AttentionDims& dims, Tensor q, Tensor keys, Tensor values,
                      Tensor lengths, Tensor out) {
  check(dims.D <= max_head_size, ExitCode::usage,
        "attention on a CPU has heads of at most {} elements, the model has {}", int64_t{max_head_size},
        dims.D);
  with_storage(q.dtype, [&]<class S>() {
    const int32_t* length = lengths.as<int32_t>();
    const S* queries = q.as<S>();
    const S* all_keys = keys.as<S>();
    const S* all_values = values.as<S>();
    S* outputs = out.as<S>();
    const int64_t P = keys.shape[1], D = dims.D;
    const int64_t positions = std::accumulate(length, length + dims.B, int64_t{0});
    const bool is_short = positions * dims.H * D < 4 * min_elements_per_thread;
    parallel_tasks(is_short ? 1 : context.threads, dims.B * dims.H, [&](int64_t task) {
      const int64_t b = task / dims.H, h = task % dims.H, kv = kv_head_of(dims, h);
      const Head<const S> k{all_keys + b * P * keys.row_stride + kv * D, keys.row_stride};
      const Head<const S> v{all_values + b * P * values.row_stride + kv * D, values.row_stride};
      const int64_t end = length[b], begin = dims.window > 0 ? std::max<int64_t>(0, end - dims.window) : 0;
      decode_head(queries + b * q.row_stride + h * D, k, v, begin, end, D, static_cast<Wide<S>>(dims.scale),
                  outputs + b * out.row_stride + h * D);
    });
  });
}

}  // namespace ptrain::cpu
