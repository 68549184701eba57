// Rotary position embedding on a CPU, in place.
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

/// table: (R, 2), cosine and sine alternating; sign: -1 turns back.
template <class S>
void rotate(S* __restrict first, S* __restrict second, const Wide<S>* __restrict table, Wide<S> sign,
            int64_t R) {
  using T = Wide<S>;
#pragma omp simd
  for (int64_t i = 0; i < R; ++i) {
    const T cosine = table[2 * i], sine = sign * table[2 * i + 1];
    const T a = widen(first[i]), b = widen(second[i]);
    first[i] = convert<S>(a * cosine - b * sine);
    second[i] = convert<S>(b * cosine + a * sine);
  }
}

}  // namespace

void rope(Context& context, Tensor x, Tensor positions, Tensor cos_sin, int64_t D, Rotation rotation) {
  with_storage(x.dtype, [&]<class S>() {
    using T = Wide<S>;
    const int32_t* position = positions.as<int32_t>();
    const T* table = cos_sin.as<T>();
    S* data = x.as<S>();
    const int64_t H = x.columns() / D, R = cos_sin.shape[1];
    const T sign = rotation == Rotation::forward ? T{1} : T{-1};
    parallel_rows(context.threads, x.rows(), x.columns(), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t h = 0; h < H; ++h) {
          S* head = data + n * x.row_stride + h * D;
          rotate(head, head + R, table + position[n] * 2 * R, sign, R);
        }
      }
    });
  });
}

}  // namespace ptrain::cpu
