// The door to OpenBLAS. Not for anything but calling it.
#include "kernels/cpu/blas.h"

#include <cblas.h>

#include "kernels/base/error.h"

namespace ptrain::cpu {
namespace {

/// OpenBLAS's own threads are one pool that concurrent callers would wait for; tiles are distributed by us.
void use_one_thread_a_call() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

CBLAS_TRANSPOSE flag(Transpose transpose) {
  return transpose == Transpose::yes ? CblasTrans : CblasNoTrans;
}

blasint narrow(int64_t extent) {
  check(extent >= 0 && extent <= INT32_MAX, "a matrix extent of {} does not fit the BLAS", extent);
  return static_cast<blasint>(extent);
}

}  // namespace

void blas_gemm(Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k, const float* a,
               int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  use_one_thread_a_call();
  cblas_sgemm(CblasRowMajor, flag(transpose_a), flag(transpose_b), narrow(m), narrow(n), narrow(k), 1.0f, a,
              narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}

void blas_gemm(Transpose transpose_a, Transpose transpose_b, int64_t m, int64_t n, int64_t k, const double* a,
               int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc) {
  use_one_thread_a_call();
  cblas_dgemm(CblasRowMajor, flag(transpose_a), flag(transpose_b), narrow(m), narrow(n), narrow(k), 1.0, a,
              narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}

std::string blas_description() {
  return openblas_get_config() + std::string(" ") + openblas_get_corename();
}

}  // namespace ptrain::cpu
