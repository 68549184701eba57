// RMSNorm on a GPU. A row is read once into registers, summed and written once: by a warp where 32 lanes hold
// it, by a block where up to 512 threads do. Rows that are not made of whole 16 bytes, or longer ones, are
// read twice, element by element. Bytes moved an element of s bytes: forward 2s, 4s with the residual sum;
// backward 3s, 4s with dresidual; dw adds at most 512 rows of f32 written and read.
#include "kernels/ops/norm.h"

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/row_teams.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

template <class T>
struct Forward {
  Matrix<const T> x, delta;
  const T* w;
  Matrix<T> sum, y;
  float* rstd;
  int64_t N, C;
  float eps;
};

template <class T, int vectors, Owner owner, Residual residual>
__global__ void __launch_bounds__(most_threads<owner>) forward_kernel(Forward<T> a) {
  constexpr int width = vector_width<T>;
  using Run = Vector<T, width>;
  __shared__ float shared[2][warp_size];
  const Team<owner> team;
  const auto for_each_held = [&](const auto& body) {
    team.template for_each_held<vectors, width>(a.C, body);
  };
  Run w[vectors];
  for_each_held([&](int v, int column) { w[v] = load_run<width>(Matrix<const T>{a.w, 0}, 0, column); });
  int turn = 0;
  for (int64_t row = team.first; row < a.N; row += team.step) {
    Run x[vectors], delta[vectors];
    for_each_held([&](int v, int column) {
      x[v] = load_run<width>(a.x, row, column);
      if constexpr (residual == Residual::added) delta[v] = load_run<width>(a.delta, row, column);
    });
    float squares = 0;
    for_each_held([&](int v, int column) {
      if constexpr (residual == Residual::added) {
        for (int i = 0; i < width; ++i)
          x[v].at[i] = from_float<T>(to_float(x[v].at[i]) + to_float(delta[v].at[i]));
        store_run<width>(a.sum, row, column, x[v]);
      }
      for (int i = 0; i < width; ++i) squares += to_float(x[v].at[i]) * to_float(x[v].at[i]);
    });
    const float mean = team.sum(squares, shared, turn++) / static_cast<float>(a.C);
    const float r = rsqrtf(mean + a.eps);
    if (team.index == 0) a.rstd[row] = r;
    for_each_held([&](int v, int column) {
      for (int i = 0; i < width; ++i)
        x[v].at[i] = from_float<T>(to_float(x[v].at[i]) * r * to_float(w[v].at[i]));
      store_run<width>(a.y, row, column, x[v]);
    });
  }
}

/// Any row, one block each: what it read is read again.
template <class T>
__global__ void forward_any_kernel(Forward<T> a) {
  __shared__ float shared[2][warp_size];
  int turn = 0;
  for (int64_t row = blockIdx.x; row < a.N; row += gridDim.x) {
    const T* x = a.x.at(row, 0);
    if (a.delta.data != nullptr) {
      for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x)
        *a.sum.at(row, c) = from_float<T>(to_float(x[c]) + to_float(*a.delta.at(row, c)));
      x = a.sum.at(row, 0);
    }
    float squares = 0;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) squares += to_float(x[c]) * to_float(x[c]);
    const float mean = block_sum(squares, shared[turn++ % 2]) / static_cast<float>(a.C);
    const float r = rsqrtf(mean + a.eps);
    if (threadIdx.x == 0) a.rstd[row] = r;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x)
      *a.y.at(row, c) = from_float<T>(to_float(x[c]) * r * to_float(a.w[c]));
  }
}

template <class T>
struct Backward {
  Matrix<const T> x;
  const T* w;
  const float* rstd;
  Matrix<const T> dy, dresidual;
  Matrix<T> dx;
  float* partials;  // (blocks, C) f32, dw of each block's rows
  int64_t N, C;
};

/// What the elements of a row of x, dy and dresidual add to dx, with slope = rstd^2 mean(dy w x).
__device__ inline float gradient(float x, float w, float dy, float rstd, float slope) {
  return rstd * (dy * w - x * slope);
}

/// What a thread reads of one row.
template <class T, int vectors>
struct HeldRow {
  Vector<T, vector_width<T>> x[vectors], dy[vectors], dresidual[vectors];
  float rstd;
};

template <class T, int vectors, Owner owner, Residual residual>
__global__ void __launch_bounds__(most_threads<owner>) backward_kernel(Backward<T> a) {
  constexpr int width = vector_width<T>;
  // With up to two runs a thread the weight stays in registers and the next row is on its way while this one
  // is summed. With four the weight comes from the first cache, and a block of 512 threads reads dresidual
  // late.
  constexpr bool is_short = vectors <= 2;
  constexpr bool is_residual_late = vectors * width > 16 && owner == Owner::block;
  __shared__ float shared[2][warp_size];
  const Team<owner> team;
  const auto for_each_held = [&](const auto& body) {
    team.template for_each_held<vectors, width>(a.C, body);
  };
  const auto read = [&](HeldRow<T, vectors>& held, int64_t row) {
    held.rstd = a.rstd[row];
    for_each_held([&](int v, int column) {
      held.x[v] = load_run<width>(a.x, row, column);
      held.dy[v] = load_run<width>(a.dy, row, column);
      if constexpr (residual == Residual::added && !is_residual_late)
        held.dresidual[v] = load_run<width>(a.dresidual, row, column);
    });
  };
  Vector<T, width> w[vectors];
  const auto read_weight = [&](int v, int column) {
    w[v] = load_run<width>(Matrix<const T>{a.w, 0}, 0, column);
  };
  if constexpr (is_short) for_each_held(read_weight);

  float dw[vectors][width] = {};
  HeldRow<T, vectors> held;
  if (is_short && team.first < a.N) read(held, team.first);
  int turn = 0;
  for (int64_t row = team.first; row < a.N; row += team.step) {
    HeldRow<T, vectors> next;
    if constexpr (!is_short) read(held, row);
    if (is_short && row + team.step < a.N) read(next, row + team.step);
    const float r = held.rstd;
    float dot = 0;
    for_each_held([&](int v, int column) {
      if constexpr (!is_short) read_weight(v, column);
      for (int i = 0; i < width; ++i) {
        const float product = to_float(held.dy[v].at[i]) * to_float(held.x[v].at[i]);
        dot += product * to_float(w[v].at[i]);
        dw[v][i] += product * r;
      }
    });
    const float slope = team.sum(dot, shared, turn++) / static_cast<float>(a.C) * r * r;
    for_each_held([&](int v, int column) {
      if constexpr (!is_short) read_weight(v, column);
      if constexpr (residual == Residual::added && is_residual_late)
        held.dresidual[v] = load_run<width>(a.dresidual, row, column);
      Vector<T, width> dx;
      for (int i = 0; i < width; ++i) {
        float sum =
            gradient(to_float(held.x[v].at[i]), to_float(w[v].at[i]), to_float(held.dy[v].at[i]), r, slope);
        if constexpr (residual == Residual::added) sum += to_float(held.dresidual[v].at[i]);
        dx.at[i] = from_float<T>(sum);
      }
      store_run<width>(a.dx, row, column, dx);
    });
    if constexpr (is_short) held = next;
  }
  if constexpr (owner == Owner::warp) {
    store_warps_sums(dw, team.index, a.C, a.partials);
  } else {
    for_each_held(
        [&](int v, int column) { store_sums<width>(a.partials + blockIdx.x * a.C + column, dw[v]); });
  }
}

/// Any row. A block's sums of dw stay in its row of partials: each column has one thread.
template <class T>
__global__ void backward_any_kernel(Backward<T> a) {
  __shared__ float shared[2][warp_size];
  float* dw = a.partials + blockIdx.x * a.C;
  for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) dw[c] = 0;
  int turn = 0;
  for (int64_t row = blockIdx.x; row < a.N; row += gridDim.x) {
    const float r = a.rstd[row];
    float dot = 0;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float product = to_float(*a.dy.at(row, c)) * to_float(*a.x.at(row, c));
      dot += product * to_float(a.w[c]);
      dw[c] += product * r;
    }
    const float slope = block_sum(dot, shared[turn++ % 2]) / static_cast<float>(a.C) * r * r;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      float dx = gradient(to_float(*a.x.at(row, c)), to_float(a.w[c]), to_float(*a.dy.at(row, c)), r, slope);
      if (a.dresidual.data != nullptr) dx += to_float(*a.dresidual.at(row, c));
      *a.dx.at(row, c) = from_float<T>(dx);
    }
  }
}

}  // namespace

void rmsnorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor sum, Tensor y, Tensor rstd,
                     double eps) {
  const int64_t N = y.rows(), C = y.columns();
  with_element(y.dtype, [&]<class T>() {
    const Forward<T> a{matrix<const T>(x),
                       matrix<const T>(delta),
                       elements<const T>(w),
                       matrix<T>(delta ? sum : Tensor()),
                       matrix<T>(y),
                       elements<float>(rstd),
                       N,
                       C,
                       static_cast<float>(eps)};
    const Hold hold = hold_of(C, vector_width<T>);
    if (hold.vectors == 0 || !all_vectorizable({x, delta, w, delta ? sum : Tensor(), y})) {
      const dim3 grid(static_cast<unsigned>(std::min(N, most_blocks)));
      return launch(context, forward_any_kernel<T>, grid, 256, 0, a);
    }
    with_hold(hold, [&]<int vectors, Owner owner>() {
      const int64_t teams = owner == Owner::warp ? divide_up(N, warps_of_block) : N;
      // As many blocks as a GPU holds at once: each takes its weight into registers once.
      const int64_t blocks = std::min(teams, most_blocks * 256 / hold.threads);
      launch(context,
             delta ? forward_kernel<T, vectors, owner, Residual::added>
                   : forward_kernel<T, vectors, owner, Residual::none>,
             dim3(static_cast<unsigned>(blocks)), hold.threads, 0, a);
    });
  });
}

void rmsnorm_backward(Context& context, Tensor x, Tensor w, Tensor rstd, Tensor dy, Tensor dresidual,
                      Tensor dx, Tensor dw) {
  const int64_t N = x.rows(), C = x.columns(), groups = sum_groups(N);
  float* partials = granted<float>(context, groups * C, "rmsnorm_backward");
  const dim3 grid(static_cast<unsigned>(groups));
  with_element(x.dtype, [&]<class T>() {
    const Backward<T> a{matrix<const T>(x),
                        elements<const T>(w),
                        elements<const float>(rstd),
                        matrix<const T>(dy),
                        matrix<const T>(dresidual),
                        matrix<T>(dx),
                        partials,
                        N,
                        C};
    const Hold hold = hold_of(C, vector_width<T>);
    if (hold.vectors == 0 || !all_vectorizable({x, w, dy, dresidual, dx}))
      return launch(context, backward_any_kernel<T>, grid, 256, 0, a);
    with_hold(hold, [&]<int vectors, Owner owner>() {
      const int64_t shared_bytes = owner == Owner::warp ? C * size_bytes(DType::f32) : 0;
      launch(context,
             dresidual ? backward_kernel<T, vectors, owner, Residual::added>
                       : backward_kernel<T, vectors, owner, Residual::none>,
             grid, hold.threads, shared_bytes, a);
    });
  });
  add_partials(context, partials, groups, dw, Write::accumulate);
}

}  // namespace ptrain::cuda
