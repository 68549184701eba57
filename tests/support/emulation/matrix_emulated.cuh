// Host twins of kernels/cuda/matrix.cuh with the hardware's lane layout. Copies happen when a thread waits
// for them and not earlier, so that a wait or a barrier that is missing shows. Not a model of speed.
#pragma once

#include <deque>
#include <vector>

#include "kernels/cuda/common.cuh"

namespace ptrain::cuda {

template <class T>
uint32_t pack(float low, float high) {
  return static_cast<uint32_t>(from_float<T>(low).bits) | static_cast<uint32_t>(from_float<T>(high).bits)
                                                              << 16;
}

namespace emulated {

struct Operands {
  uint32_t a[4], b[2];
};

/// The two numbers that pack() put together.
template <class T>
void unpack(uint32_t both, float* to) {
  to[0] = to_float(T{static_cast<uint16_t>(both)});
  to[1] = to_float(T{static_cast<uint16_t>(both >> 16)});
}

/// A row of a (register `low` and `high` of the four lanes of its group) or a column of b.
template <class T>
void gather_line(const emulation::Lanes& lanes, int group, int low, int high, float (&line)[16]) {
  for (int t = 0; t < 4; ++t) {
    const auto* words = static_cast<const uint32_t*>(lanes.of(4 * group + t));
    unpack<T>(words[low], line + 2 * t);
    unpack<T>(words[high], line + 2 * t + 8);
  }
}

inline float dot(const float (&x)[16], const float (&y)[16]) {
  float sum = 0;
  for (int k = 0; k < 16; ++k) sum += x[k] * y[k];
  return sum;
}

struct Row {
  uint16_t at[8];
};

/// Rows of four matrices, as the lanes named them.
template <class Read>
void exchange_rows(const void* row, const Read& read) {
  check(reinterpret_cast<uintptr_t>(row) % 16 == 0, "a matrix row at {} is not aligned to 16 bytes", row);
  Row own;
  std::memcpy(&own, row, sizeof own);
  emulation::warp_exchange(all_lanes, &own, sizeof own, [&](const emulation::Lanes& lanes) {
    read([&](int matrix, int r) { return static_cast<const Row*>(lanes.of(8 * matrix + r)); });
  });
}

struct Copy {
  void* to = nullptr;
  const void* from = nullptr;  // null: zeros
  int bytes = 0;
};

/// Copies of one thread that did not happen yet.
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};

/// Of the thread that runs.
inline Copies& copies() {
  thread_local std::vector<Copies> of_threads(1024);
  return of_threads[threadIdx.x];
}

}  // namespace emulated

template <class T>
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const emulated::Operands own{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulation::warp_exchange(all_lanes, &own, sizeof own, [&c](const emulation::Lanes& lanes) {
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    float rows[2][16], columns[2][16];
    for (int i = 0; i < 2; ++i) {
      emulated::gather_line<T>(lanes, g, i, i + 2, rows[i]);
      emulated::gather_line<T>(lanes, 2 * t + i, 4, 5, columns[i]);
    }
    for (int i = 0; i < 4; ++i) c[i] += emulated::dot(rows[i / 2], columns[i % 2]);
  });
}

inline void load_matrices(uint32_t (&to)[4], const void* row) {
  emulated::exchange_rows(row, [&to](const auto& row_of) {
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    for (int j = 0; j < 4; ++j) std::memcpy(&to[j], row_of(j, g)->at + 2 * t, 4);
  });
}

inline void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  emulated::exchange_rows(row, [&to](const auto& row_of) {
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    for (int j = 0; j < 4; ++j)
      to[j] = row_of(j, 2 * t)->at[g] | static_cast<uint32_t>(row_of(j, 2 * t + 1)->at[g]) << 16;
  });
}

template <int bytes>
void copy_async(void* shared, const void* global, bool is_there) {
  check(reinterpret_cast<uintptr_t>(shared) % bytes == 0 &&
            (!is_there || reinterpret_cast<uintptr_t>(global) % bytes == 0),
        "a copy of {} bytes from {} to {} is not aligned", bytes, global, shared);
  emulated::copies().open.push_back({shared, is_there ? global : nullptr, bytes});
}

inline void commit_copies() {
  emulated::Copies& copies = emulated::copies();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}

template <int pending>
void wait_for_copies() {
  emulated::Copies& copies = emulated::copies();
  while (copies.groups.size() > pending) {
    for (const emulated::Copy& copy : copies.groups.front()) {
      if (copy.from != nullptr) {
        std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
      } else {
        std::memset(copy.to, 0, static_cast<size_t>(copy.bytes));
      }
    }
    copies.groups.pop_front();
  }
}

inline float power_of_two(float x) {
  return std::exp2(x);
}

}  // namespace ptrain::cuda
