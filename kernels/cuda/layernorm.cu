// LayerNorm on a GPU. A row is read once into registers, summed twice (the mean, then the squares around it)
// and written once: by a warp where 32 lanes hold it, by a block where up to 512 threads do. Rows that are
// not made of whole 16 bytes, or longer ones, are read three times, element by element. Bytes moved an
// element of s bytes: forward 2s, 4s with the residual sum; backward 3s, 4s with dresidual; dw and db add at
// most 512 rows each of f32 written and read.
#include "kernels/ops/layernorm.h"

#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda/row_teams.cuh"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

template <class T>
struct Forward {
  Matrix<const T> x, delta;
  const T *w, *b;  // b may be null
  Matrix<T> sum, y;
  float *mean, *rstd;
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
  // With up to 16 elements a thread the weights stay in registers; else they come from the first cache, row
  // after row.
  constexpr bool is_short = vectors * width <= 16;
  Run w[vectors], b[vectors] = {};
  const auto read_weights = [&](int v, int column) {
    w[v] = load_run<width>(Matrix<const T>{a.w, 0}, 0, column);
    if (a.b != nullptr) b[v] = load_run<width>(Matrix<const T>{a.b, 0}, 0, column);
  };
  if constexpr (is_short) for_each_held(read_weights);
  int turn = 0;
  for (int64_t row = team.first; row < a.N; row += team.step) {
    Run x[vectors], delta[vectors];
    for_each_held([&](int v, int column) {
      x[v] = load_run<width>(a.x, row, column);
      if constexpr (residual == Residual::added) delta[v] = load_run<width>(a.delta, row, column);
    });
    float total = 0;
    for_each_held([&](int v, int column) {
      if constexpr (residual == Residual::added) {
        for (int i = 0; i < width; ++i)
          x[v].at[i] = from_float<T>(to_float(x[v].at[i]) + to_float(delta[v].at[i]));
        store_run<width>(a.sum, row, column, x[v]);
      }
      for (int i = 0; i < width; ++i) total += to_float(x[v].at[i]);
    });
    const float mean = team.sum(total, shared, turn++) / static_cast<float>(a.C);
    float squares = 0;
    for_each_held([&](int v, int) {
      for (int i = 0; i < width; ++i) {
        const float distance = to_float(x[v].at[i]) - mean;
        squares += distance * distance;
      }
    });
    const float r = rsqrtf(team.sum(squares, shared, turn++) / static_cast<float>(a.C) + a.eps);
    if (team.index == 0) a.mean[row] = mean, a.rstd[row] = r;
    for_each_held([&](int v, int column) {
      if constexpr (!is_short) read_weights(v, column);
      for (int i = 0; i < width; ++i)
        x[v].at[i] =
            from_float<T>((to_float(x[v].at[i]) - mean) * r * to_float(w[v].at[i]) + to_float(b[v].at[i]));
      store_run<width>(a.y, row, column, x[v]);
    });
  }
}

/// Any row, one block each: what it read is read again.
template <class T>
__global__ void forward_any_kernel(Forward<T> a) {
  __shared__ float shared[2][warp_size];
  for (int64_t row = blockIdx.x; row < a.N; row += gridDim.x) {
    const T* x = a.x.at(row, 0);
    if (a.delta.data != nullptr) {
      // Each thread reads back what it wrote itself.
      for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x)
        *a.sum.at(row, c) = from_float<T>(to_float(x[c]) + to_float(*a.delta.at(row, c)));
      x = a.sum.at(row, 0);
    }
    float total = 0;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) total += to_float(x[c]);
    const float mean = block_sum(total, shared[0]) / static_cast<float>(a.C);
    float squares = 0;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float distance = to_float(x[c]) - mean;
      squares += distance * distance;
    }
    const float r = rsqrtf(block_sum(squares, shared[1]) / static_cast<float>(a.C) + a.eps);
    if (threadIdx.x == 0) a.mean[row] = mean, a.rstd[row] = r;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float bias = a.b != nullptr ? to_float(a.b[c]) : 0;
      *a.y.at(row, c) = from_float<T>((to_float(x[c]) - mean) * r * to_float(a.w[c]) + bias);
    }
  }
}

template <class T>
struct Backward {
  Matrix<const T> x;
  const T* w;
  const float *mean, *rstd;
  Matrix<const T> dy, dresidual;
  Matrix<T> dx;
  float *dw_partials, *db_partials;  // (blocks, C) f32 each, the sums of each block's rows; db's may be null
  int64_t N, C;
};

/// What backward needs of a row: its statistics, and the means of g = dy w and of g times the normalised x.
struct RowOf {
  float mean, rstd, constant, linear;
  __device__ float normalized(float x) const { return (x - mean) * rstd; }
  __device__ float gradient(float x, float w, float dy) const {
    return rstd * (dy * w - constant - normalized(x) * linear);
  }
};

/// Elements that a thread of a whole block holds in backward: two sums each, of 128 registers in all.
constexpr int most_held_backward = 16;

template <class T, int vectors, Owner owner, Residual residual>
__global__ void __launch_bounds__(most_threads<owner>) backward_kernel(Backward<T> a) {
  constexpr int width = vector_width<T>;
  using Run = Vector<T, width>;
  __shared__ float shared[2][warp_size];
  const Team<owner> team;
  const auto for_each_held = [&](const auto& body) {
    team.template for_each_held<vectors, width>(a.C, body);
  };
  // The weight comes from the first cache, row after row: registers are for the sums.
  const auto weight_at = [&](int column) { return load_run<width>(Matrix<const T>{a.w, 0}, 0, column); };
  float dw[vectors][width] = {}, db[vectors][width] = {};
  int turn = 0;
  for (int64_t row = team.first; row < a.N; row += team.step) {
    Run x[vectors], dy[vectors], dresidual[vectors];
    for_each_held([&](int v, int column) {
      x[v] = load_run<width>(a.x, row, column);
      dy[v] = load_run<width>(a.dy, row, column);
      if constexpr (residual == Residual::added) dresidual[v] = load_run<width>(a.dresidual, row, column);
    });
    RowOf of{a.mean[row], a.rstd[row], 0, 0};
    float constant = 0, linear = 0;
    for_each_held([&](int v, int column) {
      const Run w = weight_at(column);
      for (int i = 0; i < width; ++i) {
        const float dout = to_float(dy[v].at[i]), g = dout * to_float(w.at[i]);
        const float normalized = of.normalized(to_float(x[v].at[i]));
        constant += g;
        linear += g * normalized;
        dw[v][i] += dout * normalized;
        db[v][i] += dout;
      }
    });
    of.constant = team.sum(constant, shared, turn++) / static_cast<float>(a.C);
    of.linear = team.sum(linear, shared, turn++) / static_cast<float>(a.C);
    for_each_held([&](int v, int column) {
      const Run w = weight_at(column);
      Run dx;
      for (int i = 0; i < width; ++i) {
        float sum = of.gradient(to_float(x[v].at[i]), to_float(w.at[i]), to_float(dy[v].at[i]));
        if constexpr (residual == Residual::added) sum += to_float(dresidual[v].at[i]);
        dx.at[i] = from_float<T>(sum);
      }
      store_run<width>(a.dx, row, column, dx);
    });
  }
  if constexpr (owner == Owner::warp) {
    store_warps_sums(dw, team.index, a.C, a.dw_partials);
    if (a.db_partials == nullptr) return;
    __syncthreads();  // dw has left the shared memory
    store_warps_sums(db, team.index, a.C, a.db_partials);
  } else {
    for_each_held([&](int v, int column) {
      store_sums<width>(a.dw_partials + blockIdx.x * a.C + column, dw[v]);
      if (a.db_partials != nullptr) store_sums<width>(a.db_partials + blockIdx.x * a.C + column, db[v]);
    });
  }
}

/// Any row. A block's sums of dw and db stay in its rows of the partials: each column has one thread.
template <class T>
__global__ void backward_any_kernel(Backward<T> a) {
  __shared__ float shared[2][warp_size];
  float* dw = a.dw_partials + blockIdx.x * a.C;
  float* db = a.db_partials != nullptr ? a.db_partials + blockIdx.x * a.C : nullptr;
  for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
    dw[c] = 0;
    if (db != nullptr) db[c] = 0;
  }
  for (int64_t row = blockIdx.x; row < a.N; row += gridDim.x) {
    RowOf of{a.mean[row], a.rstd[row], 0, 0};
    float constant = 0, linear = 0;
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      const float dout = to_float(*a.dy.at(row, c)), g = dout * to_float(a.w[c]);
      const float normalized = of.normalized(to_float(*a.x.at(row, c)));
      constant += g;
      linear += g * normalized;
      dw[c] += dout * normalized;
      if (db != nullptr) db[c] += dout;
    }
    of.constant = block_sum(constant, shared[0]) / static_cast<float>(a.C);
    of.linear = block_sum(linear, shared[1]) / static_cast<float>(a.C);
    for (int64_t c = threadIdx.x; c < a.C; c += blockDim.x) {
      float dx = of.gradient(to_float(*a.x.at(row, c)), to_float(a.w[c]), to_float(*a.dy.at(row, c)));
      if (a.dresidual.data != nullptr) dx += to_float(*a.dresidual.at(row, c));
      *a.dx.at(row, c) = from_float<T>(dx);
    }
  }
}

}  // namespace

void layernorm_forward(Context& context, Tensor x, Tensor delta, Tensor w, Tensor b, Tensor sum, Tensor y,
                       Tensor mean, Tensor rstd, double eps) {
  const int64_t N = y.rows(), C = y.columns();
  if (!delta) sum = {};
  with_element(y.dtype, [&]<class T>() {
    const Forward<T> a{.x = matrix<const T>(x),
                       .delta = matrix<const T>(delta),
                       .w = elements<const T>(w),
                       .b = b ? elements<const T>(b) : nullptr,
                       .sum = matrix<T>(sum),
                       .y = matrix<T>(y),
                       .mean = elements<float>(mean),
                       .rstd = elements<float>(rstd),
                       .N = N,
                       .C = C,
                       .eps = static_cast<float>(eps)};
    const Hold hold = hold_of(C, vector_width<T>);
    if (hold.vectors == 0 || !all_vectorizable({x, delta, w, b, sum, y})) {
      const dim3 grid(static_cast<unsigned>(std::min(N, most_blocks)));
      return launch(context, forward_any_kernel<T>, grid, 256, 0, a);
    }
    with_hold(hold, [&]<int vectors, Owner owner>() {
      const int64_t teams = owner == Owner::warp ? divide_up(N, warps_of_block) : N;
      // As many blocks as a GPU holds at once: each takes short weights into registers once.
      const int64_t blocks = std::min(teams, most_blocks * 256 / hold.threads);
      launch(context,
             delta ? forward_kernel<T, vectors, owner, Residual::added>
                   : forward_kernel<T, vectors, owner, Residual::none>,
             dim3(static_cast<unsigned>(blocks)), hold.threads, 0, a);
    });
  });
}

void layernorm_backward(Context& context, Tensor x, Tensor w, Tensor mean, Tensor rstd, Tensor dy,
                        Tensor dresidual, Tensor dx, Tensor dw, Tensor db) {
  const int64_t N = x.rows(), C = x.columns(), groups = sum_groups(N);
  float* partials = granted<float>(context, (db ? 2 : 1) * groups * C, "layernorm_backward");
  float* db_partials = db ? partials + groups * C : nullptr;
  const dim3 grid(static_cast<unsigned>(groups));
  with_element(x.dtype, [&]<class T>() {
    const Backward<T> a{.x = matrix<const T>(x),
                        .w = elements<const T>(w),
                        .mean = elements<const float>(mean),
                        .rstd = elements<const float>(rstd),
                        .dy = matrix<const T>(dy),
                        .dresidual = matrix<const T>(dresidual),
                        .dx = matrix<T>(dx),
                        .dw_partials = partials,
                        .db_partials = db_partials,
                        .N = N,
                        .C = C};
    const Hold hold = hold_of(C, vector_width<T>, most_held_backward);
    if (hold.vectors == 0 || !all_vectorizable({x, w, dy, dresidual, dx}))
      return launch(context, backward_any_kernel<T>, grid, 256, 0, a);
    with_hold(hold, [&]<int vectors, Owner owner>() {
      if constexpr (owner == Owner::warp || vectors * vector_width<T> <= most_held_backward) {
        const int64_t shared_bytes = owner == Owner::warp ? C * size_bytes(DType::f32) : 0;
        launch(context,
               dresidual ? backward_kernel<T, vectors, owner, Residual::added>
                         : backward_kernel<T, vectors, owner, Residual::none>,
               grid, hold.threads, shared_bytes, a);
      }
    });
  });
  add_partials(context, partials, groups, dw, Write::accumulate);
  if (db) add_partials(context, db_partials, groups, db, Write::accumulate);
}

}  // namespace ptrain::cuda
