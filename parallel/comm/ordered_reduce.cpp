#include "parallel/comm/ordered_reduce.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "kernels/base/float16.h"

namespace ptrain {
namespace {

constexpr int64_t block_elements = 1024;  // small enough for the first-level cache, long enough for vectors

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      using Bits = std::make_unsigned_t<T>;  // wraps instead of being undefined
      return static_cast<T>(static_cast<Bits>(a) + static_cast<Bits>(b));
    } else {
      return a + b;
    }
  }
};

// Of two, where one is not a number that one: a maximum must not hide a NaN that some rank has seen.
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return (b > a || b != b) ? b : a;
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return (b < a || b != b) ? b : a;
  }
};

// What values of T are summed up as, and the way there and back: 16-bit floats as f32, rounded once.
template <class T>
struct Wide {
  using type = T;
  static T of(T x) { return x; }
  static T back(T x) { return x; }
};
template <>
struct Wide<BFloat16> {
  using type = float;
  static float of(BFloat16 x) { return widen(x); }
  static BFloat16 back(float x) { return to_bfloat16(x); }
};
template <>
struct Wide<Float16> {
  using type = float;
  static float of(Float16 x) { return widen(x); }
  static Float16 back(float x) { return to_float16(x); }
};

// Block by block into a local array, so that `out` may be one of the sources.
template <class T, class Op>
void reduce_blocks(std::span<const void* const> sources, void* out, int64_t count, Op op) {
  typename Wide<T>::type block[block_elements];
  for (int64_t begin = 0; begin < count; begin += block_elements) {
    const int64_t n = std::min(block_elements, count - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) block[i] = Wide<T>::of(first[i]);
    for (size_t rank = 1; rank < sources.size(); ++rank) {
      const T* next = static_cast<const T*>(sources[rank]) + begin;
      for (int64_t i = 0; i < n; ++i) block[i] = op(block[i], Wide<T>::of(next[i]));
    }
    T* to = static_cast<T*>(out) + begin;
    for (int64_t i = 0; i < n; ++i) to[i] = Wide<T>::back(block[i]);
  }
}

// The tree over a few ranks splits them behind the largest power of two that leaves some for the right.
template <class T, class W = typename Wide<T>::type>
void sum_tree_block(std::span<const void* const> sources, int64_t begin, int64_t n, W* block) {
  if (sources.size() == 1) {
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (int64_t i = 0; i < n; ++i) block[i] = Wide<T>::of(first[i]);
    return;
  }
  const size_t left = std::bit_floor(sources.size() - 1);
  W right[block_elements];
  sum_tree_block<T>(sources.first(left), begin, n, block);
  sum_tree_block<T>(sources.subspan(left), begin, n, right);
  for (int64_t i = 0; i < n; ++i) block[i] = Sum{}(block[i], right[i]);
}

template <class T>
void sum_tree(std::span<const void* const> sources, void* out, int64_t count) {
  typename Wide<T>::type block[block_elements];
  for (int64_t begin = 0; begin < count; begin += block_elements) {
    const int64_t n = std::min(block_elements, count - begin);
    sum_tree_block<T>(sources, begin, n, block);
    T* to = static_cast<T*>(out) + begin;
    for (int64_t i = 0; i < n; ++i) to[i] = Wide<T>::back(block[i]);
  }
}

template <class T>
void reduce_typed(std::span<const void* const> sources, void* out, int64_t count, Reduce reduce,
                  SumOrder order) {
  switch (reduce) {
    case Reduce::sum:
      if (order == SumOrder::tree) return sum_tree<T>(sources, out, count);
      return reduce_blocks<T>(sources, out, count, Sum{});
    case Reduce::max:
      return reduce_blocks<T>(sources, out, count, Max{});
    case Reduce::min:
      return reduce_blocks<T>(sources, out, count, Min{});
  }
}

}  // namespace

bool can_reduce(DType dtype, Reduce reduce) {
  switch (dtype) {
    case DType::f32:
    case DType::f64:
    case DType::bf16:
    case DType::f16:
    case DType::i32:
    case DType::i64:
      return true;
    case DType::u8:
      return reduce != Reduce::sum;
    default:
      return false;
  }
}

void reduce_in_order(std::span<const void* const> sources, void* out, int64_t count, DType dtype,
                     Reduce reduce, SumOrder order) {
  check(can_reduce(dtype, reduce), "no such reduction over ranks for {}", name_of(dtype));
  switch (dtype) {
    case DType::f32:
      return reduce_typed<float>(sources, out, count, reduce, order);
    case DType::f64:
      return reduce_typed<double>(sources, out, count, reduce, order);
    case DType::bf16:
      return reduce_typed<BFloat16>(sources, out, count, reduce, order);
    case DType::f16:
      return reduce_typed<Float16>(sources, out, count, reduce, order);
    case DType::i32:
      return reduce_typed<int32_t>(sources, out, count, reduce, order);
    case DType::i64:
      return reduce_typed<int64_t>(sources, out, count, reduce, order);
    case DType::u8:
      return reduce_typed<uint8_t>(sources, out, count, reduce, order);
    default:
      return;
  }
}

}  // namespace ptrain
