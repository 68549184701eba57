// The host twins of the matrix units' instructions and of asynchronous copies: products beside plain loops,
// the lane layout word by word, and that a wait that is missing shows.
#include "kernels/cuda/matrix.cuh"

#include <gtest/gtest.h>

#include "tests/support/twins.h"

namespace ptrain::cuda {
namespace {

/// One warp: c (16, 8) = a (16, 16) times b (16, 8) with operands from ldmatrix. b_is_transposed: b lies as
/// (8, 16).
template <class T>
void product_kernel(const T* a, const T* b, float* c, bool b_is_transposed) {
  T* shared_a = dynamic_shared<T>();
  T* shared_b = shared_a + 16 * 16;
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  for (int i = lane; i < 16 * 16; i += warp_size) shared_a[i] = a[i];
  for (int i = lane; i < 16 * 8; i += warp_size) shared_b[i] = b[i];
  __syncwarp();
  uint32_t rows[4], others[4];
  load_matrices(rows, shared_a + lane % 16 * 16 + lane / 16 * 8);
  if (b_is_transposed) {
    load_matrices(others, shared_b + lane % 8 * 16 + lane / 8 % 2 * 8);
  } else {
    load_matrices_transposed(others, shared_b + lane % 16 * 8);
  }
  float sums[4] = {100, 200, 300, 400};  // products are added
  mma<T>(sums, rows, others[0], others[1]);
  for (int e = 0; e < 4; ++e) c[(g + e / 2 * 8) * 8 + 2 * t + e % 2] = sums[e];
}

/// Every lane's registers of both loads of four matrices whose element (matrix, row, column) is
/// 64 matrix + 8 row + column.
void load_kernel(uint32_t* straight, uint32_t* transposed) {
  auto* shared = dynamic_shared<uint16_t>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += warp_size) shared[i] = static_cast<uint16_t>(i);
  __syncwarp();
  uint32_t to[4];
  load_matrices(to, shared + 8 * lane);
  for (int j = 0; j < 4; ++j) straight[4 * lane + j] = to[j];
  load_matrices_transposed(to, shared + 8 * lane);
  for (int j = 0; j < 4; ++j) transposed[4 * lane + j] = to[j];
}

/// Two groups of copies of 16 bytes a thread, of which the first is there after the wait and the second is
/// not: out holds what each thread found.
void copy_kernel(const int32_t* from, int32_t* out, int there) {
  auto* shared = dynamic_shared<int32_t>();
  const int i = static_cast<int>(threadIdx.x);
  int32_t *first = shared + 8 * i, *second = first + 4;
  for (int e = 0; e < 8; ++e) first[e] = -1;
  copy_async<16>(first, from + 4 * i, i < there);
  commit_copies();
  copy_async<4>(second + 2, from + 4 * i, true);
  commit_copies();
  wait_for_copies<1>();
  for (int e = 0; e < 4; ++e) out[9 * i + e] = first[e];
  out[9 * i + 4] = second[2];
  wait_for_copies<0>();
  for (int e = 0; e < 4; ++e) out[9 * i + 5 + e] = second[e];
}

class MatrixUnits : public testing::TestWithParam<DType> {};

TEST_P(MatrixUnits, AProductEqualsPlainLoops) {
  with_element(GetParam(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, float>) {
      for (const bool is_transposed : {false, true}) {
        TestDevice device;
        TwinTensor a(device, {16, 16}, GetParam()), b(device, {16, 8}, GetParam()),
            c(device, {16, 8}, DType::f32);
        a.random(1), b.random(2);
        launch(device.gpu(), product_kernel<T>, dim3(1), 32, (16 * 16 + 16 * 8) * 2,
               elements<const T>(a.gpu()), elements<const T>(b.gpu()), elements<float>(c.gpu()),
               is_transposed);
        const std::vector<double> x = a.values(), y = b.values(), product = c.values();
        for (size_t i = 0; i < 16; ++i) {
          for (size_t j = 0; j < 8; ++j) {
            double expected = i < 8 ? (j % 2 == 0 ? 100 : 200) : (j % 2 == 0 ? 300 : 400);
            for (size_t k = 0; k < 16; ++k)
              expected += x[16 * i + k] * y[is_transposed ? 16 * j + k : 8 * k + j];
            EXPECT_NEAR(product[8 * i + j], expected, 1e-4) << "row " << i << ", column " << j;
          }
        }
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(DTypes, MatrixUnits, testing::Values(DType::bf16, DType::f16));

TEST(MatrixUnits, LanesGetTheElementsThatTheHardwareGivesThem) {
  TestDevice device;
  TwinTensor straight(device, {32, 4}, DType::i32), transposed(device, {32, 4}, DType::i32);
  launch(device.gpu(), load_kernel, dim3(1), 32, 512, static_cast<uint32_t*>(straight.gpu().data),
         static_cast<uint32_t*>(transposed.gpu().data));
  const std::vector<double> rows = straight.values(), columns = transposed.values();
  for (int lane = 0; lane < 32; ++lane) {
    for (int j = 0; j < 4; ++j) {
      const auto word = [&](const std::vector<double>& of) {
        return static_cast<uint32_t>(of[static_cast<size_t>(4 * lane + j)]);
      };
      const uint32_t g = static_cast<uint32_t>(lane / 4), t = static_cast<uint32_t>(lane % 4),
                     base = 64 * static_cast<uint32_t>(j);
      const uint32_t row = base + 8 * g + 2 * t, column = base + 16 * t + g;
      EXPECT_EQ(word(rows), row | (row + 1) << 16);
      EXPECT_EQ(word(columns), column | (column + 8) << 16);
    }
  }
}

TEST(Copies, HappenWhenAThreadWaitsForTheirGroupAndAreZerosWhereNothingIs) {
  TestDevice device;
  constexpr int threads = 37, there = 30;
  TwinTensor from(device, {threads, 4}, DType::i32), out(device, {threads, 9}, DType::i32);
  std::vector<int32_t> numbers(threads * 4);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int32_t>(i) + 1;
  from.set(numbers);
  launch(device.gpu(), copy_kernel, dim3(1), threads, threads * 32,
         static_cast<const int32_t*>(from.gpu().data), static_cast<int32_t*>(out.gpu().data), there);
  const std::vector<double> found = out.values();
  for (int i = 0; i < threads; ++i) {
    for (int e = 0; e < 9; ++e) {
      const double first = i < there ? 4 * i + e + 1 : 0, second = e == 7 ? 4 * i + 1 : -1;
      EXPECT_EQ(found[static_cast<size_t>(9 * i + e)], e < 4 ? first : e == 4 ? -1 : second) << i << " " << e;
    }
  }
}

TEST(Copies, OfAddressesThatAreNotAlignedAreRefused) {
  TestDevice device;
  TwinTensor from(device, {1, 64}, DType::i32), out(device, {1, 64}, DType::i32);
  EXPECT_THROW(
      {
        launch(device.gpu(), copy_kernel, dim3(1), 1, 64, static_cast<const int32_t*>(from.gpu().data) + 1,
               static_cast<int32_t*>(out.gpu().data), 1);
        device.stream().synchronize();
      },
      Error);
}

}  // namespace
}  // namespace ptrain::cuda
