// A tensor's checksum: what it is, and what it tells apart.
#include "kernels/ops/checksum.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/base/error.h"
#include "kernels/base/rng.h"

namespace ptrain {
namespace {

int64_t sum_of(const std::vector<uint8_t>& bytes, DType dtype, int threads = 1) {
  Context context = cpu_context(threads);
  int64_t sum = 0;
  const Shape shape{std::ssize(bytes) / size_bytes(dtype)};
  checksum(context, Tensor(const_cast<uint8_t*>(bytes.data()), shape, dtype), Tensor(&sum, {1}, DType::i64));
  return sum;
}

std::vector<uint8_t> random_bytes(int64_t count) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  const Rng rng(3, 1);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(rng.below(i, 256));
  return bytes;
}

TEST(Checksum, IsTheSumOfItsTermsForAnyThreads) {
  for (const DType dtype : {DType::u8, DType::bf16, DType::f32, DType::f64}) {
    const auto width = static_cast<size_t>(size_bytes(dtype));
    for (const int64_t count : {0, 1, 1023, 200'001}) {
      const std::vector<uint8_t> bytes = random_bytes(count * size_bytes(dtype));
      uint64_t expected = 0;
      for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        uint64_t bits = 0;
        for (size_t b = width; b-- > 0;) bits = bits << 8 | bytes[i * width + b];
        expected += checksum_term(bits, i);
      }
      for (const int threads : {1, 2, 3})
        EXPECT_EQ(sum_of(bytes, dtype, threads), static_cast<int64_t>(expected))
            << name_of(dtype) << " " << count;
    }
  }
}

TEST(Checksum, TellsEveryFlippedBitEverySwapAndEveryShiftApart) {
  for (const DType dtype : {DType::u8, DType::bf16, DType::f32}) {
    const auto width = static_cast<size_t>(size_bytes(dtype));
    const std::vector<uint8_t> bytes = random_bytes(96);
    std::set<int64_t> sums = {sum_of(bytes, dtype)};
    size_t changes = 0;
    const auto changed = [&](const auto& change) {
      std::vector<uint8_t> other = bytes;
      change(other);
      if (other == bytes) return;
      sums.insert(sum_of(other, dtype));
      ++changes;
    };
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit)
      changed([&](auto& x) { x[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8); });
    for (size_t i = 0; i + 2 * width <= bytes.size(); i += width)
      changed(
          [&](auto& x) { std::swap_ranges(x.begin() + i, x.begin() + i + width, x.begin() + i + width); });
    changed([&](auto& x) { std::rotate(x.begin(), x.begin() + width, x.end()); });
    // One bit of the same place in two elements, as two faults that would cancel in a plain sum.
    for (size_t i = width; i < bytes.size(); i += width) {
      changed([&](auto& x) {
        x[0] ^= 1;
        x[i] ^= 1;
      });
    }
    EXPECT_EQ(sums.size(), changes + 1) << name_of(dtype);
  }
}

TEST(Checksum, AddsToWhatIsThereAndWantsContiguousElements) {
  Context context = cpu_context(1);
  std::vector<float> x = {1, 2, 3, 4};
  int64_t sum = 5;
  const Tensor out(&sum, {1}, DType::i64);
  checksum(context, Tensor(x.data(), {4}, DType::f32), out);
  int64_t twice = sum;
  checksum(context, Tensor(x.data(), {4}, DType::f32), Tensor(&twice, {1}, DType::i64));
  EXPECT_EQ(twice - sum, sum - 5);
  for (const uint64_t factor : {uint64_t{3}, -uint64_t{1}, uint64_t{0x9E3779B97F4A7C15}}) {
    int64_t weighed = 5;
    checksum(context, Tensor(x.data(), {4}, DType::f32), Tensor(&weighed, {1}, DType::i64), factor);
    EXPECT_EQ(static_cast<uint64_t>(weighed) - 5, factor * static_cast<uint64_t>(sum - 5));
  }
  Tensor columns(x.data(), {2, 1}, DType::f32);
  columns.row_stride = 2;
  EXPECT_THROW(checksum(context, columns, out), Error);
  EXPECT_THROW(checksum(context, Tensor(x.data(), {4}, DType::f32), Tensor(x.data(), {1}, DType::f32)),
               Error);
}

}  // namespace
}  // namespace ptrain
