// What the emulated device is for: faults planted into kernels and into the host's order of work must show.
// Each fault stands beside its right twin, which must never fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/cuda/common.cuh"
#include "tests/support/twins.h"

namespace ptrain::cuda {
namespace {

constexpr int threads = 96;
constexpr uint64_t orders = 40;

enum class Fault { none, planted };

/// What one thread wrote is read by another.
template <Fault fault>
__global__ void reverse_block(float* x) {
  x += blockIdx.x * threads;
  __shared__ float shared[threads];
  const int t = static_cast<int>(threadIdx.x);
  shared[t] = x[t];
  if constexpr (fault == Fault::none) __syncthreads();
  x[t] = shared[threads - 1 - t];
}

/// The same inside a warp.
template <Fault fault>
__global__ void reverse_warp(float* x) {
  x += blockIdx.x * threads;
  __shared__ float shared[threads];
  const int t = static_cast<int>(threadIdx.x), first = t / 32 * 32;
  shared[t] = x[t];
  if constexpr (fault == Fault::none) __syncwarp();
  x[t] = shared[first + 31 - t % 32];
}

/// A buffer is written again while others may still read it.
template <Fault fault>
__global__ void rotate_twice(float* x) {
  x += blockIdx.x * threads;
  __shared__ float shared[threads];
  const int t = static_cast<int>(threadIdx.x);
  float value = x[t];
  for (int turn = 0; turn < 2; ++turn) {
    if constexpr (fault == Fault::none) __syncthreads();  // the last turn has been read
    shared[t] = value;
    __syncthreads();
    value = shared[(t + 1) % threads];
  }
  x[t] = value;
}

/// A sum of what was never set: dynamic shared memory starts as anything.
template <Fault fault>
__global__ void sum_of_block(float* x) {
  float* sum = dynamic_shared<float>();
  if (fault == Fault::none && threadIdx.x == 0) *sum = 0;
  __syncthreads();
  for (int t = 0; t < threads; ++t) {
    if (static_cast<int>(threadIdx.x) == t) *sum += x[t];
    __syncthreads();
  }
  x[threadIdx.x] = *sum;
}

/// One block takes for granted that another has run.
template <Fault fault>
__global__ void chain_blocks(float* x) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const bool reads_other = fault == Fault::planted && blockIdx.x > 0;
  x[at] = 2 * (reads_other ? x[at - threads] : x[at]);
}

/// Runs a kernel over the same values in many orders.   `blocks` of them are there; how often the result was
/// not what `expected` makes of the values
template <class Expected>
int wrong_runs(void (*kernel)(float*), int blocks, const Expected& expected) {
  TestDevice device;
  int wrong = 0;
  for (uint64_t order = 1; order <= orders; ++order) {
    TwinTensor x(device, {blocks, threads}, DType::f32);
    x.random(order);  // others each time: memory that was left behind must not look right
    const std::vector<double> before = x.values();
    shuffle_order(order);
    launch(device.gpu(), kernel, dim3(static_cast<unsigned>(blocks)), threads, 64,
           static_cast<float*>(x.gpu().data));
    const std::vector<double> after = x.values();
    bool is_right = true;
    for (size_t i = 0; i < before.size(); ++i)
      is_right = is_right && std::fabs(after[i] - expected(before, i)) < 1e-4;  // false for no number too
    wrong += is_right ? 0 : 1;
  }
  return wrong;
}

double block_reversed(const std::vector<double>& x, size_t i) {
  return x[i / threads * threads + threads - 1 - i % threads];
}
double warp_reversed(const std::vector<double>& x, size_t i) {
  return x[i / 32 * 32 + 31 - i % 32];
}
double rotated_twice(const std::vector<double>& x, size_t i) {
  return x[i / threads * threads + (i + 2) % threads];
}
double block_sum_of(const std::vector<double>& x, size_t) {
  double sum = 0;
  for (const double value : x) sum += value;
  return sum;
}
double doubled(const std::vector<double>& x, size_t i) {
  return 2 * x[i];
}

TEST(Faults, AMissingBarrierShowsInMostOrders) {
  EXPECT_EQ(wrong_runs(reverse_block<Fault::none>, 3, block_reversed), 0);
  EXPECT_GE(wrong_runs(reverse_block<Fault::planted>, 3, block_reversed), 38);
}

TEST(Faults, ABarrierMissingBeforeMemoryIsUsedAgainShowsInMostOrders) {
  EXPECT_EQ(wrong_runs(rotate_twice<Fault::none>, 3, rotated_twice), 0);
  EXPECT_GE(wrong_runs(rotate_twice<Fault::planted>, 3, rotated_twice), 38);
}

TEST(Faults, AMissingWarpBarrierShowsInMostOrders) {
  EXPECT_EQ(wrong_runs(reverse_warp<Fault::none>, 3, warp_reversed), 0);
  EXPECT_GE(wrong_runs(reverse_warp<Fault::planted>, 3, warp_reversed), 38);
}

TEST(Faults, SharedMemoryThatWasNeverSetShows) {
  EXPECT_EQ(wrong_runs(sum_of_block<Fault::none>, 1, block_sum_of), 0);
  EXPECT_EQ(wrong_runs(sum_of_block<Fault::planted>, 1, block_sum_of), static_cast<int>(orders));
}

TEST(Faults, ABlockThatNeedsAnotherOneShowsInMostOrders) {
  EXPECT_EQ(wrong_runs(chain_blocks<Fault::none>, 5, doubled), 0);
  EXPECT_GE(wrong_runs(chain_blocks<Fault::planted>, 5, doubled), 38);
}

__global__ void write_at(float* x, int64_t element) {
  if (threadIdx.x == 0) x[element] = 1;
}

TEST(Faults, AWriteOutsideATensorShowsInItsMarginsAndGaps) {
  for (const int64_t element : {-1, 5, 6, 17, 20}) {  // rows of 5 elements, 3 apart
    TestDevice device;
    TwinTensor x(device, {3, 5}, DType::f32, 3);
    x.fill(0);
    launch(device.gpu(), write_at, dim3(1), threads, 0, static_cast<float*>(x.gpu().data), element);
    const bool is_inside = element == 17 || element == 20;
    const testing::AssertionResult result = x.agrees({});
    EXPECT_FALSE(result) << element;
    EXPECT_EQ(std::string(result.message()).find("wrote outside") == std::string::npos, is_inside)
        << element << ": " << result.message();
  }
}

using Kernel = void (*)(float*);

/// What the device says when it runs one block of 64 threads.
std::string complaint_of(Kernel kernel, uint64_t order) {
  TestDevice device;
  TwinTensor x(device, {64}, DType::f32);
  x.fill(0);
  shuffle_order(order);
  launch(device.gpu(), kernel, dim3(1), 64, 0, static_cast<float*>(x.gpu().data));
  try {
    device.stream().synchronize();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

__global__ void barrier_against_exchange(float* x) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    x[threadIdx.x] = __shfl_sync(all_lanes, 1.0f, 0);
  }
}
__global__ void two_barriers(float* x) {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    x[0] = 1;
    __syncthreads();
  }
}
__global__ void mask_without_its_caller(float* x) {
  x[threadIdx.x] = __shfl_xor_sync(0xfffeu, 1.0f, 1);
}
__global__ void masks_that_differ(float* x) {
  x[threadIdx.x] = __shfl_xor_sync(threadIdx.x % 32 == 3 ? 0xffu : all_lanes, 1.0f, 1);
}
__global__ void lanes_that_left(float* x) {
  if (threadIdx.x % 32 >= 16) return;
  x[threadIdx.x] = __shfl_xor_sync(all_lanes, 1.0f, 1);
}
__global__ void shuffle_against_barrier_of_the_warp(float* x) {
  if (threadIdx.x % 32 == 5) {
    __syncwarp();
  } else {
    x[threadIdx.x] = __shfl_sync(all_lanes, 1.0f, 0);
  }
}

TEST(Faults, ThreadsThatWaitForOthersInVainAreNamed) {
  struct Planted {
    Kernel kernel;
    std::vector<std::string> words;  // one of them
  };
  const std::vector<Planted> faults = {
      {barrier_against_exchange, {"stands still"}},
      {two_barriers, {"stand at different barriers"}},
      {mask_without_its_caller, {"mask 0xfffe is without it"}},
      {masks_that_differ, {"with other masks", "is without it"}},
      {lanes_that_left, {"that have ended", "stands still"}},
      {shuffle_against_barrier_of_the_warp, {"meet in different exchanges"}},
  };
  for (const auto& [kernel, words] : faults) {
    for (uint64_t order = 1; order <= 10; ++order) {
      const std::string text = complaint_of(kernel, order);
      EXPECT_TRUE(std::ranges::any_of(words, [&](const std::string& w) { return text.find(w) != text.npos; }))
          << "expected: " << words[0] << "\nheard: " << text;
    }
  }
}

/// Exchanges among parts of a warp, and a warp that is not whole, are no faults.
__global__ void halves_exchange(float* x) {
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  float value = static_cast<float>(t);
  if (lane < 16) value = __shfl_xor_sync(half, value, 1);  // one half exchanges more often
  value = __shfl_xor_sync(half, value, 2);
  double wide = value;
  if (lane >= 16) wide = __shfl_xor_sync(half, wide, 4);
  x[t] = __shfl_xor_sync(all_lanes, static_cast<float>(wide), 8);
}

TEST(Faults, ExchangesAmongPartsOfAWarpAreNone) {
  TestDevice device;
  for (uint64_t order = 1; order <= orders; ++order) {
    TwinTensor x(device, {64}, DType::f32);
    x.fill(0);
    shuffle_order(order);
    launch(device.gpu(), halves_exchange, dim3(1), 64, 0, static_cast<float*>(x.gpu().data));
    const std::vector<double> values = x.values();
    for (int t = 0; t < 64; ++t) {
      const int from = t ^ 8, way = from % 32 < 16 ? 1 ^ 2 : 2 ^ 4;
      EXPECT_EQ(values[static_cast<size_t>(t)], from ^ way) << t;
    }
  }
}

TEST(FaultsDeathTest, TheHostCannotTouchDeviceMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TestDevice device;
  TwinTensor x(device, {8}, DType::f32);
  EXPECT_DEATH(std::printf("%f", *static_cast<volatile float*>(x.gpu().data)), "");
  EXPECT_DEATH(*static_cast<volatile float*>(x.gpu().data) = 1, "");
}

TEST(FaultsDeathTest, AKernelFarOutsideABufferDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TestDevice device;
  TwinTensor x(device, {8}, DType::f32);
  EXPECT_DEATH(
      {
        launch(device.gpu(), write_at, dim3(1), 1, 0, static_cast<float*>(x.gpu().data), 2000);
        device.stream().synchronize();
      },
      "");
}

__global__ void move_runs(const float* from, float* to) {
  store_vector(to + 4 * threadIdx.x, load_vector(from + 4 * threadIdx.x));
}

TEST(FaultsDeathTest, AVectorAtAnAddressThatIsNoMultipleOfItsSizeDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TestDevice device;
  TwinTensor x(device, {40}, DType::f32), y(device, {40}, DType::f32);
  x.random(1), y.fill(0);
  const auto run = [&](int64_t from, int64_t to) {
    launch(device.gpu(), move_runs, dim3(1), 2, 0, static_cast<const float*>(x.gpu().data) + from,
           static_cast<float*>(y.gpu().data) + to);
    device.stream().synchronize();
  };
  run(4, 8);
  EXPECT_DEATH(run(2, 8), "");
  EXPECT_DEATH(run(4, 9), "");
}

__global__ void sum_of_neighbours(float* x, int reach) {
  __shared__ float shared[threads];
  __shared__ float beside[threads];  // what an index that is too large would read
  beside[threadIdx.x] = 0;
  shared[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = shared[static_cast<int>(threadIdx.x) + reach] + beside[threadIdx.x];
}

TEST(FaultsDeathTest, AnIndexOutsideASharedArrayDies) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TestDevice device;
  TwinTensor x(device, {threads}, DType::f32);
  x.random(1);
  const auto run = [&](int reach) {
    launch(device.gpu(), sum_of_neighbours, dim3(1), threads, 0, static_cast<float*>(x.gpu().data), reach);
    device.stream().synchronize();
  };
  run(0);
  EXPECT_DEATH(run(1), "");
  EXPECT_DEATH(run(-1), "");
}

__global__ void set_to(float* x, float value) {
  x[threadIdx.x] = value;
}
__global__ void copy_of(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
}

TEST(Faults, AResultThatIsReadBeforeTheHostWaitedIsTheOldOne) {
  TestDevice device;
  TwinTensor x(device, {threads}, DType::f32);
  x.fill(1);
  const Buffer staging = Buffer::staging(threads * 4, device.device());
  const Tensor host(staging.data(), {threads}, DType::f32);
  const auto last = [&] { return host.span<const float>()[threads - 1]; };
  transfer(x.gpu(), host, device.stream());
  device.stream().synchronize();
  launch(device.gpu(), set_to, dim3(1), threads, 0, static_cast<float*>(x.gpu().data), 2.0f);
  transfer(x.gpu(), host, device.stream());
  EXPECT_EQ(last(), 1);
  device.stream().synchronize();
  EXPECT_EQ(last(), 2);
}

/// One stream writes, another reads; how often the reader came too early.
int early_readers(Fault fault) {
  TestDevice device;
  const Stream other(device.device());
  Context reader = device.gpu();
  reader.stream = &other;
  int early = 0;
  for (uint64_t order = 1; order <= orders; ++order) {
    TwinTensor x(device, {threads}, DType::f32), y(device, {threads}, DType::f32);
    x.fill(1), y.fill(0);
    shuffle_order(order);
    const Event written(device.device());
    launch(device.gpu(), set_to, dim3(1), threads, 0, static_cast<float*>(x.gpu().data), 2.0f);
    device.stream().record(written);
    if (fault == Fault::none) other.wait(written);
    launch(reader, copy_of, dim3(1), threads, 0, static_cast<const float*>(x.gpu().data),
           static_cast<float*>(y.gpu().data));
    other.synchronize();
    early += y.values()[0] == 2 ? 0 : 1;
  }
  return early;
}

TEST(Faults, AMissingWaitBetweenStreamsShowsInManyOrders) {
  EXPECT_EQ(early_readers(Fault::none), 0);
  EXPECT_GE(early_readers(Fault::planted), 10);
}

}  // namespace
}  // namespace ptrain::cuda
