// Matrix products of the BLAS library, on the calling thread alone. Not for choosing tiles or threads: see
// gemm.cpp.
#pragma once

#include <cstdint>
#include <string>

namespace ptrain::cpu {

enum class Transpose { no, yes };

/// c = op(a) op(b) + beta c, row-major.   op(a): (m, k)   op(b): (k, n)   c: (m, n); ld* are the row strides
/// of the matrices as stored. Threads may call it at the same time.
void blas_gemm(Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k, const float* a,
               int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void blas_gemm(Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k, const double* a,
               int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

/// Name, version and processor kernels of the library, for `ptrain --version`.
std::string blas_description();

}  // namespace ptrain::cpu
