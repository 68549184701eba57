// The libraries behind a GPU's ops: handles, and what was built or chosen for the shapes met so far. Not for
// callers outside of kernels/cuda: they see kernels/ops/libraries.h.
#pragma once

#include <cublasLt.h>

#include <map>

#include "kernels/base/handle.h"
#include "kernels/cuda/algorithm_cache.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/gemm_key.h"
#include "kernels/ops/libraries.h"

namespace ptrain::cuda {

/// Throws where a call of cuBLASLt failed.   what: "choosing an algorithm"
void expect_blas(cublasStatus_t status, const char* what);

inline void destroy_blas(cublasLtHandle_t handle) noexcept {
  cublasLtDestroy(handle);
}
inline void destroy_product(cublasLtMatmulDesc_t product) noexcept {
  cublasLtMatmulDescDestroy(product);
}
inline void destroy_layout(cublasLtMatrixLayout_t layout) noexcept {
  cublasLtMatrixLayoutDestroy(layout);
}
using BlasHandle = Handle<cublasLtHandle_t, destroy_blas>;
using ProductHandle = Handle<cublasLtMatmulDesc_t, destroy_product>;
using LayoutHandle = Handle<cublasLtMatrixLayout_t, destroy_layout>;

/// How one shape of product is run: made when it is first met, then only its pointers change.
struct GemmPlan {
  ProductHandle product;
  LayoutHandle a, b, c;
  cublasLtMatmulAlgo_t algorithm{};
  int64_t workspace_bytes = 0;
};

/// One a rank.
class CudaLibraries : public Libraries {
 public:
  CudaLibraries(Device device, const LibraryOptions& options);
  void save() const override;

  Device device() const { return device_; }
  const LibraryOptions& options() const { return options_; }
  bool has_8_bit_products() const { return has_8_bit_products_; }
  cublasLtHandle_t blas() const { return blas_.get(); }

  std::map<GemmKey, GemmPlan> plans;  // of matrix products
  AlgorithmCache algorithms;          // chosen by time, in this run or an earlier one
  CudnnAttentionHandle attention;     // null in a build without it

 private:
  Device device_;
  LibraryOptions options_;
  bool has_8_bit_products_ = false;
  BlasHandle blas_;
};

/// The libraries of a GPU's context. Errors (defect): it has none.
CudaLibraries& libraries_of(const Context& context);

}  // namespace ptrain::cuda
