// A cuBLASLt without a GPU: it multiplies on the host inside the emulated stream, and says what was asked of
// it.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <vector>

namespace ptrain::fake {

/// One product that was enqueued.
struct Product {
  uint64_t algorithm = 0;  // 1, 2 or 3
  const void *a = nullptr, *c = nullptr;
  void* output = nullptr;
  size_t workspace_bytes = 0;
  bool has_short_sums = false;
};

struct CublasLt {
  // What the library does:
  int candidates = 3;
  uint64_t fastest = 2;       // the others take a millisecond longer
  uint64_t broken = 0;        // this one cannot be enqueued
  bool forgets = false;       // an algorithm from elsewhere is not taken
  bool has_memory = true;     // for cudaMallocAsync
  bool is_capturing = false;  // what cudaStreamIsCapturing says
  // What it was asked:
  int estimates = 0;
  uint32_t reductions = 0;           // of the last estimate
  std::vector<uint32_t> alignments;  // of the last estimate: a, b, c, d
  int64_t borrowed = 0;              // what cudaMallocAsync gave and cudaFreeAsync has not taken back
  std::vector<Product> products;
};

/// The one of the program; a test sets it to {} first.
CublasLt& cublaslt();

}  // namespace ptrain::fake
