#include "launch/bench/op_cases.h"

#include <cmath>

#include "kernels/ops/activation.h"
#include "kernels/ops/adamw.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/elementwise.h"
#include "kernels/ops/embedding.h"
#include "kernels/ops/exact_sum.h"
#include "kernels/ops/loss.h"
#include "kernels/ops/norm.h"
#include "kernels/ops/quantize.h"
#include "kernels/ops/rope.h"
#include "src/model/activations.h"

namespace ptrain::bench {
namespace {

double number(int64_t n) {
  return static_cast<double>(n);
}

/// What all families of cases are made from.
struct Sizes {
  Context& context;
  const ModelSpec& spec;
  int64_t B, T, N;
  StateTypes types;
  DType dtype;  // of activations and weights
  bool is_fp8;

  double bytes_of(double elements) const { return elements * static_cast<double>(size_bytes(dtype)); }
  double layers() const { return number(spec.L); }
};

void add_attention(std::vector<OpCase>& cases, const Sizes& s) {
  const AttentionDims dims{.B = s.B,
                           .T = s.T,
                           .H = s.spec.H,
                           .K = s.spec.K,
                           .D = s.spec.D,
                           .group = s.spec.H / s.spec.K,
                           .scale = 1 / std::sqrt(number(s.spec.D)),
                           .has_documents = false};
  const int64_t N = s.N, C = s.spec.H * s.spec.D, kv = s.spec.K * s.spec.D;
  const Shape statistics{s.B, s.spec.H, s.T};
  // Pairs of query and key that the causal mask leaves, two products each; backward has five.
  const double pairs = number(s.B * s.spec.H) * number(s.T) * number(s.T + 1) / 2;
  const double product = 2 * pairs * number(s.spec.D), elements = number(2 * N * (C + kv));
  Context& context = s.context;
  const DType dtype = s.dtype;
  cases.push_back({"attention", s.bytes_of(elements), 2 * product, s.layers(), [=, &context](Tensors& made) {
                     const Tensor q = made.random({N, C}, dtype), k = made.random({N, kv}, dtype),
                                  v = made.random({N, kv}, dtype), starts = made.zeros({N}, DType::i32),
                                  out = made.zeros({N, C}, dtype), lse = made.zeros(statistics, wide(dtype));
                     return [=, &context] { attention_forward(context, dims, q, k, v, starts, out, lse); };
                   }});
  cases.push_back(
      {"attention backward", s.bytes_of(2 * elements), 5 * product, s.layers(), [=, &context](Tensors& made) {
         const Tensor q = made.random({N, C}, dtype), k = made.random({N, kv}, dtype),
                      v = made.random({N, kv}, dtype), starts = made.zeros({N}, DType::i32),
                      out = made.zeros({N, C}, dtype), lse = made.zeros(statistics, wide(dtype)),
                      dout = made.random({N, C}, dtype), delta = made.zeros(statistics, wide(dtype)),
                      dq = made.zeros({N, C}, dtype), dk = made.zeros({N, kv}, dtype),
                      dv = made.zeros({N, kv}, dtype);
         attention_forward(context, dims, q, k, v, starts, out, lse);  // what backward reads
         return [=, &context] {
           attention_backward(context, dims, q, k, v, starts, out, lse, dout, delta, dq, dk, dv);
         };
       }});
}

void add_rope(std::vector<OpCase>& cases, const Sizes& s) {
  const int64_t N = s.N, T = s.T, D = s.spec.D, columns = (s.spec.H + s.spec.K) * D;
  const auto angles = std::make_shared<OwnedTensor>(Shape{T, D / 2, 2}, wide(s.dtype));
  fill_rope_table(s.spec, angles->view);
  Context& context = s.context;
  const DType dtype = s.dtype;
  cases.push_back({"rope, and backward", s.bytes_of(2 * number(N * columns)), 0, 2 * s.layers(),
                   [=, &context](Tensors& made) {
                     const Tensor qk = made.random({N, columns}, dtype),
                                  positions = made.integers(N, [&](int64_t n) { return n % T; }),
                                  table = made.copy_of(angles->view);
                     return [=, &context] { rope(context, qk, positions, table, D, Rotation::forward); };
                   }});
}

void add_norm(std::vector<OpCase>& cases, const Sizes& s) {
  const int64_t N = s.N, C = s.spec.C;
  const double bytes = s.bytes_of(4 * number(N * C));
  Context& context = s.context;
  const DType dtype = s.dtype, grad = s.types.grad;
  cases.push_back({"rmsnorm with residual", bytes, 0, 2 * s.layers(), [=, &context](Tensors& made) {
                     const Tensor x = made.random({N, C}, dtype), delta = made.random({N, C}, dtype),
                                  w = made.random({C}, dtype), sum = made.zeros({N, C}, dtype),
                                  y = made.zeros({N, C}, dtype), rstd = made.zeros({N}, wide(dtype));
                     return [=, &context] { rmsnorm_forward(context, x, delta, w, sum, y, rstd, 1e-5); };
                   }});
  cases.push_back({"rmsnorm backward", bytes, 0, 2 * s.layers(), [=, &context](Tensors& made) {
                     const Tensor x = made.random({N, C}, dtype), w = made.random({C}, dtype),
                                  rstd = made.random({N}, wide(dtype)), dy = made.random({N, C}, dtype),
                                  dresidual = made.random({N, C}, dtype), dx = made.zeros({N, C}, dtype),
                                  dw = made.zeros({C}, grad);
                     return [=, &context] { rmsnorm_backward(context, x, w, rstd, dy, dresidual, dx, dw); };
                   }});
  cases.push_back({"add", s.bytes_of(3 * number(N * C)), 0, s.layers(), [=, &context](Tensors& made) {
                     const Tensor x = made.random({N, C}, dtype), y = made.random({N, C}, dtype);
                     return [=, &context] { add(context, x, y); };
                   }});
}

void add_activation(std::vector<OpCase>& cases, const Sizes& s) {
  const int64_t N = s.N, F = s.spec.F;
  Context& context = s.context;
  const DType dtype = s.dtype;
  cases.push_back({"swiglu", s.bytes_of(3 * number(N * F)), 0, s.layers(), [=, &context](Tensors& made) {
                     const Tensor gate_up = made.random({N, 2 * F}, dtype), y = made.zeros({N, F}, dtype);
                     return [=, &context] { swiglu_forward(context, gate_up, y); };
                   }});
  cases.push_back(
      {"swiglu backward", s.bytes_of(6 * number(N * F)), 0, s.layers(), [=, &context](Tensors& made) {
         const Tensor gate_up = made.random({N, 2 * F}, dtype), dy = made.random({N, F}, dtype),
                      dgate_up = made.zeros({N, 2 * F}, dtype), y = made.zeros({N, F}, dtype);
         return [=, &context] { swiglu_backward(context, gate_up, dy, dgate_up, y); };
       }});
}

void add_loss(std::vector<OpCase>& cases, const Sizes& s) {
  const int64_t R = std::min(s.N, head_chunk_rows), V = s.spec.V;
  const double elements = number(R * V), calls = number(s.N) / number(R);
  Context& context = s.context;
  const DType dtype = s.dtype;
  cases.push_back({"loss statistics", s.bytes_of(elements), 0, calls, [=, &context](Tensors& made) {
                     const Tensor logits = made.random({R, V}, dtype), targets = made.zeros({R}, DType::i32),
                                  statistics = made.zeros({R, 3}, wide(dtype));
                     return [=, &context] { loss_statistics(context, logits, targets, 0, statistics); };
                   }});
  cases.push_back({"loss backward", s.bytes_of(2 * elements), 0, calls, [=, &context](Tensors& made) {
                     const Tensor logits = made.random({R, V}, dtype), targets = made.zeros({R}, DType::i32),
                                  statistics = made.zeros({R, 3}, wide(dtype));
                     loss_statistics(context, logits, targets, 0, statistics);  // what backward reads
                     return [=, &context] { loss_backward(context, logits, statistics, targets, 0, 1); };
                   }});
}

void add_embedding(std::vector<OpCase>& cases, const Sizes& s) {
  const int64_t N = s.N, V = s.spec.V, C = s.spec.C;
  const double elements = number(N * C);
  const auto id = [V](int64_t n) { return n * 7919 % V; };
  Context& context = s.context;
  const DType dtype = s.dtype, grad = s.types.grad;
  cases.push_back({"embedding", s.bytes_of(2 * elements), 0, 1, [=, &context](Tensors& made) {
                     const Tensor ids = made.integers(N, id), table = made.random({V, C}, dtype),
                                  y = made.zeros({N, C}, dtype);
                     return [=, &context] { embedding_forward(context, ids, table, 0, y); };
                   }});
  // Each gradient is read, and the row of the table that it falls on is read and written once for all.
  const double sums = 2 * number(std::min(N, V) * C) * static_cast<double>(size_bytes(grad));
  cases.push_back({"embedding backward", s.bytes_of(elements) + sums, 0, 1, [=, &context](Tensors& made) {
                     const Tensor ids = made.integers(N, id), dy = made.random({N, C}, dtype),
                                  dtable = made.zeros({V, C}, grad);
                     return [=, &context] { embedding_backward(context, ids, dy, 0, dtable); };
                   }});
}

void add_optimizer(std::vector<OpCase>& cases, const Sizes& s) {
  const int64_t n = std::min<int64_t>(parameter_count(s.spec), int64_t{32} << 20);
  const double calls = number(parameter_count(s.spec)) / number(n);
  Context& context = s.context;
  const StateTypes types = s.types;
  const auto bytes = [n](double each) { return each * number(n); };
  const auto size = [](DType dtype) { return number(size_bytes(dtype)); };
  cases.push_back({"fill of gradients", bytes(size(types.grad)), 0, calls, [=, &context](Tensors& made) {
                     const Tensor g = made.zeros({n}, types.grad);
                     return [=, &context] { fill(context, g, 0); };
                   }});
  cases.push_back({"norm of gradients", bytes(size(types.grad)), 0, calls, [=, &context](Tensors& made) {
                     const Tensor g = made.random({n}, types.grad), sum = made.zeros({1}, DType::f64);
                     return [=, &context] { sum_of_squares(context, g, sum); };
                   }});
  // In place of the line above where bits are not to depend on the grid.
  cases.push_back(
      {"norm of gradients, exact", bytes(size(types.grad)), 0, 0, [=, &context](Tensors& made) {
         const Tensor g = made.random({n}, types.grad), bins = made.zeros({exact_bins, 2}, DType::i64);
         return [=, &context] { exact_sum_of_squares(context, g, bins, Write::overwrite); };
       }});
  const bool has_master = types.master != types.param;
  const double moved = 2 * size(types.param) + (has_master ? 2 * size(types.master) : 0) + size(types.grad) +
                       4 * size(types.moments);
  cases.push_back({"adamw", bytes(moved), 0, calls, [=, &context](Tensors& made) {
                     const OwnedTensor one({1}, DType::f64);
                     *one.view.as<double>() = 1;
                     const Tensor scale = made.copy_of(one.view), w = made.random({n}, types.param),
                                  g = made.random({n}, types.grad), m = made.zeros({n}, types.moments),
                                  v = made.zeros({n}, types.moments);
                     const Tensor master = has_master ? made.zeros({n}, types.master) : Tensor();
                     const AdamWStep step{.learning_rate = 1e-6, .weight_decay = 0.1};
                     return [=, &context] { adamw(context, step, scale, w, master, g, m, v); };
                   }});
}

/// How often the operands of a block's products hold N * C elements: each of a layer's three tensors goes
/// into two of its products, once as it is and once turned.
double operands_of_block(const ModelSpec& spec, int64_t N) {
  const int64_t layers[][2] = {{spec.C, (spec.H + 2 * spec.K) * spec.D},
                               {spec.H * spec.D, spec.C},
                               {spec.C, 2 * spec.F},
                               {spec.F, spec.C}};
  double elements = 0;
  for (const auto& [C, O] : layers) elements += number(N * C + O * C + N * O);
  return elements / number(N * spec.C);
}

/// Tensors on their way to an 8-bit product.
void add_quantize(std::vector<OpCase>& cases, const Sizes& s) {
  if (!s.is_fp8) return;
  const int64_t N = s.N, C = s.spec.C;
  const double elements = number(N * C), calls = s.layers() * operands_of_block(s.spec, N);
  Context& context = s.context;
  const DType dtype = s.dtype;
  cases.push_back({"amax", s.bytes_of(elements), 0, 2 * calls, [=, &context](Tensors& made) {
                     const Tensor x = made.random({N, C}, dtype), amax = made.zeros({1}, DType::f32);
                     return [=, &context] { update_amax(context, x, amax); };
                   }});
  for (const bool is_turned : {false, true}) {
    cases.push_back({is_turned ? "quantize, turned" : "quantize", s.bytes_of(elements) + elements, 0, calls,
                     [=, &context](Tensors& made) {
                       const OwnedTensor one({1}, DType::f32);
                       *one.view.as<float>() = 1;
                       const Tensor x = made.random({N, C}, dtype), scale = made.copy_of(one.view);
                       const Tensor y = made.zeros(is_turned ? Shape{C, N} : Shape{N, C}, DType::f8_e4m3);
                       return [=, &context] {
                         quantize(context, x, scale, is_turned ? Tensor() : y, is_turned ? y : Tensor());
                       };
                     }});
  }
}

}  // namespace

std::vector<OpCase> op_cases(Workbench& bench, const ModelSpec& spec, int64_t B, int64_t T,
                             const Compute& compute) {
  const StateTypes types = state_types(compute.precision);
  const Sizes sizes{.context = bench.context(),
                    .spec = spec,
                    .B = B,
                    .T = T,
                    .N = B * T,
                    .types = types,
                    .dtype = types.param,
                    .is_fp8 = compute.precision == Config::Precision::fp8};
  std::vector<OpCase> cases;
  add_attention(cases, sizes);
  add_rope(cases, sizes);
  add_norm(cases, sizes);
  add_activation(cases, sizes);
  add_loss(cases, sizes);
  add_embedding(cases, sizes);
  add_quantize(cases, sizes);
  add_optimizer(cases, sizes);
  return cases;
}

}  // namespace ptrain::bench
