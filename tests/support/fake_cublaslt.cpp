#include "tests/support/fake_cublaslt.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <cstring>

#include "kernels/base/runtime.h"
#include "tests/support/emulation/fibers.h"
#include "tests/support/emulation/host_product.h"

namespace {

using ptrain::DType;
using ptrain::fake::cublaslt;

struct Description {
  int32_t transposed_a = CUBLAS_OP_N, transposed_b = CUBLAS_OP_N;
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void *bias = nullptr, *a_scale = nullptr, *b_scale = nullptr;
  int8_t has_short_sums = 0;
};
struct Layout {
  cudaDataType type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Preference {
  uint64_t workspace_bytes = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t alignments[4] = {256, 256, 256, 256};
};

template <class T, class Handle>
T& of(Handle handle) {
  return *reinterpret_cast<T*>(handle);
}

template <class T>
cublasStatus_t assign(T& to, const void* from, size_t bytes) {
  if (bytes != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

DType dtype_of(cudaDataType type) {
  switch (type) {
    case CUDA_R_16BF:
      return DType::bf16;
    case CUDA_R_16F:
      return DType::f16;
    case CUDA_R_8F_E4M3:
      return DType::f8_e4m3;
    case CUDA_R_8F_E5M2:
      return DType::f8_e5m2;
    default:
      return DType::f32;
  }
}

cublasLtMatmulAlgo_t algorithm(uint64_t number) {
  cublasLtMatmulAlgo_t made{};
  made.data[0] = number;
  made.data[7] = ~number;
  return made;
}

}  // namespace

namespace ptrain::fake {

CublasLt& cublaslt() {
  static CublasLt the_library;
  return the_library;
}

}  // namespace ptrain::fake

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cublaslt().is_capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** data, size_t bytes, cudaStream_t) {
  if (!cublaslt().has_memory) return cudaErrorMemoryAllocation;
  using ptrain::runtime::MemoryKind;
  *data = ptrain::runtime::allocate(static_cast<int64_t>(bytes), MemoryKind::device, 0);
  ++cublaslt().borrowed;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  --cublaslt().borrowed;
  // Work that was enqueued before may still write there.
  ptrain::emulation::enqueue(stream,
                             [=] { ptrain::runtime::release(data, ptrain::runtime::MemoryKind::device, 0); });
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion() {
  return CUBLAS_VERSION;
}
const char* cublasLtGetStatusName(cublasStatus_t) {
  return "FAKE_STATUS";
}
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "some status";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Description);
  return compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                              : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  delete reinterpret_cast<Description*>(product);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
  auto& d = of<Description>(product);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return assign(d.transposed_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return assign(d.transposed_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return assign(d.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return assign(d.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
      return assign(d.a_scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
      return assign(d.b_scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
      return assign(d.has_short_sums, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t stride) {
  *made = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, stride});
  return stride >= static_cast<int64_t>(rows) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<Preference*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  auto& p = of<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return assign(p.workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return assign(p.reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return assign(p.alignments[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return assign(p.alignments[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return assign(p.alignments[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return assign(p.alignments[3], value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatmulPreference_t preference,
                                              int asked, cublasLtMatmulHeuristicResult_t* results,
                                              int* count) {
  auto& library = cublaslt();
  const auto& p = of<Preference>(preference);
  ++library.estimates;
  library.reductions = p.reductions;
  library.alignments.assign(p.alignments, p.alignments + 4);
  *count = std::min(asked, library.candidates);
  for (int i = 0; i < *count; ++i) {
    results[i] = {};
    results[i].algo = algorithm(static_cast<uint64_t>(i + 1));
    results[i].workspaceSize = p.workspace_bytes;
    results[i].state = CUBLAS_STATUS_SUCCESS;
  }
  return *count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                       const cublasLtMatmulAlgo_t* algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
  if (cublaslt().forgets || algo->data[7] != ~algo->data[0]) return CUBLAS_STATUS_NOT_SUPPORTED;
  result->workspaceSize = 1024;
  result->state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* output,
                              cublasLtMatrixLayout_t output_layout, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  auto& library = cublaslt();
  const auto& d = of<Description>(product);
  const Layout &la = of<Layout>(a_layout), &lb = of<Layout>(b_layout), &lc = of<Layout>(c_layout);
  const bool is_a_transposed = d.transposed_a == CUBLAS_OP_T, is_b_transposed = d.transposed_b == CUBLAS_OP_T;
  const uint64_t m = is_a_transposed ? la.columns : la.rows, k = is_a_transposed ? la.rows : la.columns;
  const uint64_t n = is_b_transposed ? lb.rows : lb.columns;
  const float times = *static_cast<const float*>(beta);
  const bool fits = (is_b_transposed ? lb.columns : lb.rows) == k && lc.rows == m && lc.columns == n &&
                    output_layout == c_layout && *static_cast<const float*>(alpha) == 1 &&
                    (times == 0 || times == 1) && reinterpret_cast<uintptr_t>(workspace) % 16 == 0;
  const bool has_bias = d.epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (!fits || algo->data[7] != ~algo->data[0] || has_bias != (d.bias != nullptr))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (algo->data[0] == library.broken) return CUBLAS_STATUS_NOT_SUPPORTED;
  library.products.push_back({algo->data[0], a, c, output, workspace_bytes, d.has_short_sums != 0});
  const ptrain::cuda::GemmKey key{.a = dtype_of(la.type),
                                  .b = dtype_of(lb.type),
                                  .c = dtype_of(lc.type),
                                  .is_a_transposed = is_a_transposed,
                                  .is_b_transposed = is_b_transposed,
                                  .m = static_cast<int64_t>(m),
                                  .n = static_cast<int64_t>(n),
                                  .k = static_cast<int64_t>(k),
                                  .a_stride = la.stride,
                                  .b_stride = lb.stride,
                                  .c_stride = lc.stride,
                                  .has_bias = has_bias,
                                  .accumulates = times == 1};
  const ptrain::cuda::GemmPointers pointers{.a = a,
                                            .b = b,
                                            .c = const_cast<void*>(c),
                                            .bias = d.bias,
                                            .a_factor = static_cast<const float*>(d.a_scale),
                                            .b_factor = static_cast<const float*>(d.b_scale)};
  ptrain::emulation::enqueue(stream, [=, is_slow = algo->data[0] != library.fastest] {
    if (is_slow) usleep(1000);
    ptrain::emulation::multiply(key, pointers, output);
  });
  return CUBLAS_STATUS_SUCCESS;
}
