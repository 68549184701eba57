// Copies of tensors on a CPU, converting where the dtypes differ, and copies of chosen rows.
#include <algorithm>
#include <cstring>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/cpu/convert.h"
#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

/// Copies know 8-bit types too, which other ops do not.
template <class Body>
void with_any_storage(DType dtype, const Body& body) {
  if (size_bytes(dtype) == 1) return with_float8(dtype, body);
  with_storage(dtype, body);
}

const char* row(Tensor x, int64_t n) {
  return static_cast<const char*>(x.data) + n * x.row_stride * size_bytes(x.dtype);
}

char* mutable_row(Tensor x, int64_t n) {
  return static_cast<char*>(x.data) + n * x.row_stride * size_bytes(x.dtype);
}

// What no cache holds goes past them: a store that goes through one reads its line first, a third of the
// traffic.
constexpr int64_t min_streamed_bytes = int64_t{32} << 20;

void copy_streamed(const char* from, char* to, int64_t bytes) {
#if defined(__x86_64__)
  constexpr int64_t width = sizeof(__m128i), line = 64;
  const int64_t head = std::min(bytes, (line - reinterpret_cast<intptr_t>(to) % line) % line);
  std::memcpy(to, from, static_cast<size_t>(head));
  int64_t at = head;
  for (; at + line <= bytes; at += line) {
    for (int64_t i = at; i < at + line; i += width)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
  _mm_sfence();
  std::memcpy(to + at, from + at, static_cast<size_t>(bytes - at));
#else
  std::memcpy(to, from, static_cast<size_t>(bytes));
#endif
}

void copy_same(Context& context, Tensor x, Tensor y) {
  if (x.is_contiguous() && y.is_contiguous()) {
    const int64_t size = size_bytes(x.dtype);
    const bool is_streamed = x.numel() * size >= min_streamed_bytes;
    parallel_ranges(context.threads, x.numel(), min_elements_per_thread * 4, 1024,
                    [&](int64_t begin, int64_t end) {
                      const char* from = static_cast<const char*>(x.data) + begin * size;
                      char* to = static_cast<char*>(y.data) + begin * size;
                      const int64_t bytes = (end - begin) * size;
                      if (is_streamed) return copy_streamed(from, to, bytes);
                      std::memcpy(to, from, static_cast<size_t>(bytes));
                    });
    return;
  }
  const size_t width = static_cast<size_t>(x.columns() * size_bytes(x.dtype));
  parallel_rows(context.threads, x.rows(), x.columns(), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) std::memcpy(mutable_row(y, n), row(x, n), width);
  });
}

template <class From, class To>
void convert_row(const From* x, To* y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) y[i] = convert<To>(x[i]);
}

template <class From, class To>
void copy_converted(Context& context, Tensor x, Tensor y) {
  const From* in = static_cast<const From*>(x.data);
  To* out = static_cast<To*>(y.data);
  if (x.is_contiguous() && y.is_contiguous()) {
    parallel_ranges(context.threads, x.numel(), min_elements_per_thread, 1024,
                    [&](int64_t begin, int64_t end) { convert_row(in + begin, out + begin, end - begin); });
    return;
  }
  parallel_rows(context.threads, x.rows(), x.columns(), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      convert_row(in + n * x.row_stride, out + n * y.row_stride, x.columns());
  });
}

}  // namespace

void copy(Context& context, Tensor x, Tensor y) {
  if (x.dtype == y.dtype) return copy_same(context, x, y);
  with_any_storage(x.dtype, [&]<class From>() {
    with_any_storage(y.dtype, [&]<class To>() {
      if constexpr (!std::is_same_v<From, To>) copy_converted<From, To>(context, x, y);
    });
  });
}

void gather_rows(Context& context, Tensor x, Tensor index, Tensor y) {
  const int32_t* from = index.as<int32_t>();
  const size_t width = static_cast<size_t>(y.columns() * size_bytes(y.dtype));
  parallel_rows(context.threads, y.rows(), y.columns(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::memcpy(mutable_row(y, r), row(x, from[r]), width);
  });
}

void scatter_rows(Context& context, Tensor x, Tensor index, Tensor y) {
  const int32_t* to = index.as<int32_t>();
  const size_t width = static_cast<size_t>(x.columns() * size_bytes(x.dtype));
  parallel_rows(context.threads, x.rows(), x.columns(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) std::memcpy(mutable_row(y, to[r]), row(x, r), width);
  });
}

}  // namespace ptrain::cpu
