// Rotary position embedding on a GPU, in place: 16 bytes of each half of a head an access where the addresses
// allow it. Bytes moved a rotated element of s bytes: 2s (1 read, 1 written); a row of the table is read once
// a row of x, by neighbouring threads, and shared by the heads.
#include "kernels/ops/rope.h"

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

constexpr int heads_of_thread = 4;

template <class T>
struct Rope {
  Matrix<T> x;
  const int32_t* positions;
  const float* cos_sin;  // (P, R, 2)
  float sign;            // -1 turns back
  int64_t threads;       // of all rows: (row, group of heads, run of the first half)
  Divider per_row, runs;
  int groups, H, D, R;
};

template <int width>
struct Angles {
  float cosine[width], sine[width];
};

template <int width>
__device__ inline Angles<width> load_angles(const float* table) {
  Angles<width> angles;
  if constexpr (width == 1) {
    angles.cosine[0] = table[0], angles.sine[0] = table[1];
  } else {
    for (int i = 0; i < width; i += 2) {
      const auto pair = load_vector(table + 2 * i);
      angles.cosine[i] = pair.at[0], angles.sine[i] = pair.at[1];
      angles.cosine[i + 1] = pair.at[2], angles.sine[i + 1] = pair.at[3];
    }
  }
  return angles;
}

template <class T, int width>
__global__ void rope_kernel(Rope<T> a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= a.threads) return;
  const unsigned row = a.per_row.quotient(static_cast<unsigned>(index));
  const unsigned in_row = static_cast<unsigned>(index) - row * a.per_row.divisor();
  const int group = static_cast<int>(a.runs.quotient(in_row));
  const int column = (static_cast<int>(in_row) - group * static_cast<int>(a.runs.divisor())) * width;
  const auto angles = load_angles<width>(a.cos_sin + (int64_t{a.positions[row]} * a.R + column) * 2);
  // All heads of the thread are read before the first is written.
  Vector<T, width> first[heads_of_thread], second[heads_of_thread];
  for (int k = 0; k < heads_of_thread; ++k) {
    const int head = group + k * a.groups;
    if (head >= a.H) continue;
    first[k] = load_run<width>(a.x, row, int64_t{head} * a.D + column);
    second[k] = load_run<width>(a.x, row, int64_t{head} * a.D + a.R + column);
  }
  for (int k = 0; k < heads_of_thread; ++k) {
    const int head = group + k * a.groups;
    if (head >= a.H) continue;
    for (int i = 0; i < width; ++i) {
      const float x1 = to_float(first[k].at[i]), x2 = to_float(second[k].at[i]);
      const float cosine = angles.cosine[i], sine = a.sign * angles.sine[i];
      first[k].at[i] = from_float<T>(x1 * cosine - x2 * sine);
      second[k].at[i] = from_float<T>(x2 * cosine + x1 * sine);
    }
    store_run<width>(a.x, row, int64_t{head} * a.D + column, first[k]);
    store_run<width>(a.x, row, int64_t{head} * a.D + a.R + column, second[k]);
  }
}

}  // namespace

void rope(Context& context, Tensor x, Tensor positions, Tensor cos_sin, int64_t D, Rotation rotation) {
  const int64_t N = x.rows(), H = x.columns() / D, R = cos_sin.shape[1];
  if (N == 0 || H == 0 || R == 0) return;
  const int64_t bytes = size_bytes(x.dtype), groups = divide_up(H, heads_of_thread);
  const bool is_wide = is_vectorizable(x) && D * bytes % 16 == 0 && R * bytes % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(cos_sin.data) % 16 == 0;
  with_element(x.dtype, [&]<class T>() {
    with_width<T>(is_wide, [&]<int width>() {
      const int64_t runs = R / width, threads = N * groups * runs;
      check(threads < int64_t{1} << 31, "rope of {} rows and {} columns is more than a kernel walks", N,
            x.columns());
      const Rope<T> a{.x = matrix<T>(x),
                      .positions = elements<const int32_t>(positions),
                      .cos_sin = elements<const float>(cos_sin),
                      .sign = rotation == Rotation::forward ? 1.0f : -1.0f,
                      .threads = threads,
                      .per_row = Divider(groups * runs),
                      .runs = Divider(runs),
                      .groups = static_cast<int>(groups),
                      .H = static_cast<int>(H),
                      .D = static_cast<int>(D),
                      .R = static_cast<int>(R)};
      launch(context, rope_kernel<T, width>, dim3(static_cast<unsigned>(divide_up(threads, run_threads))),
             run_threads, 0, a);
    });
  });
}

}  // namespace ptrain::cuda
