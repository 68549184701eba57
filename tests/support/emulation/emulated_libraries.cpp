// What cuBLASLt does, done by the host inside the emulated stream: products as GemmKey defines them. The ops
// above, kernels/cuda/gemm.cpp, are the GPU's own. Weak: a test may put the real file or a fake in its place.
#include <algorithm>
#include <vector>

#include "kernels/base/stream.h"
#include "kernels/cpu/convert.h"
#include "kernels/cuda/twins.h"
#include "tests/support/emulation/fibers.h"
#include "tests/support/emulation/host_product.h"

namespace ptrain {
namespace emulation {
namespace {

/// Calls body.operator()<S>() with the storage type of a dtype.
template <class Body>
void with_storage(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<float>();
    case DType::bf16:
      return body.template operator()<cpu::BFloat16>();
    case DType::f16:
      return body.template operator()<cpu::Float16>();
    case DType::f8_e4m3:
      return body.template operator()<cpu::Float8E4M3>();
    case DType::f8_e5m2:
      return body.template operator()<cpu::Float8E5M2>();
    default:
      fail(ExitCode::defect, "a GPU multiplies no matrices of {}", name_of(dtype));
  }
}

/// A column-major matrix of (rows, columns), or the transposed of one, in f32: element (i, j) at [j * rows +
/// i].
std::vector<float> widened(const void* data, DType dtype, int64_t rows, int64_t columns, int64_t stride,
                           bool is_transposed = false) {
  std::vector<float> wide(static_cast<size_t>(rows * columns));
  with_storage(dtype, [&]<class S>() {
    const S* from = static_cast<const S*>(data);
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < rows; ++i)
        wide[static_cast<size_t>(j * rows + i)] =
            cpu::convert<float>(is_transposed ? from[i * stride + j] : from[j * stride + i]);
  });
  return wide;
}

}  // namespace

void multiply(const cuda::GemmKey& key, const cuda::GemmPointers& p, void* output) {
  const int64_t m = key.m, n = key.n;
  const std::vector<float> a = widened(p.a, key.a, m, key.k, key.a_stride, key.is_a_transposed);
  const std::vector<float> b = widened(p.b, key.b, key.k, n, key.b_stride, key.is_b_transposed);
  const float factor = p.a_factor == nullptr ? 1.0f : *p.a_factor * *p.b_factor;
  std::vector<float> bias(static_cast<size_t>(m));
  if (p.bias != nullptr) bias = widened(p.bias, key.c, m, 1, m);
  std::vector<float> sums(static_cast<size_t>(m));
  with_storage(key.c, [&]<class S>() {
    for (int64_t j = 0; j < n; ++j) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (int64_t k = 0; k < key.k; ++k) {
        const float* from = a.data() + k * m;
        const float times = b[static_cast<size_t>(j * key.k + k)];
        for (int64_t i = 0; i < m; ++i) sums[static_cast<size_t>(i)] += from[i] * times;
      }
      const S* old = static_cast<const S*>(p.c) + j * key.c_stride;
      S* to = static_cast<S*>(output) + j * key.c_stride;
      for (int64_t i = 0; i < m; ++i) {
        const float before = key.accumulates ? cpu::convert<float>(old[i]) : 0.0f;
        const auto at = static_cast<size_t>(i);
        to[i] = cpu::convert<S>(sums[at] * factor + bias[at] + before);
      }
    }
  });
}

}  // namespace emulation

namespace cuda {
namespace {

class EmulatedLibraries : public Libraries {
 public:
  void save() const override {}
};

}  // namespace

[[gnu::weak]] std::unique_ptr<Libraries> make_libraries(Device, const LibraryOptions&) {
  return std::make_unique<EmulatedLibraries>();
}

[[gnu::weak]] LibraryVersions library_versions() {
  return {};
}

[[gnu::weak]] void run_product(Context& context, const GemmKey& key, const GemmPointers& pointers) {
  emulation::enqueue(context.stream->native(), [=] { emulation::multiply(key, pointers, pointers.c); });
}

}  // namespace cuda
}  // namespace ptrain
