#include "kernels/cuda/gemm_plan.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "kernels/base/log.h"
#include "kernels/base/stream.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/scratch.h"

namespace ptrain::cuda {
namespace {

inline void destroy_preference(cublasLtMatmulPreference_t preference) noexcept {
  cublasLtMatmulPreferenceDestroy(preference);
}
using PreferenceHandle = Handle<cublasLtMatmulPreference_t, destroy_preference>;

constexpr int most_candidates = 8;
constexpr int timed_runs = 3;

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    case DType::f8_e4m3:
      return CUDA_R_8F_E4M3;
    case DType::f8_e5m2:
      return CUDA_R_8F_E5M2;
    default:
      fail(ExitCode::defect, "a GPU multiplies no matrices of {}", name_of(dtype));
  }
}

template <class Value>
void set(const ProductHandle& product, cublasLtMatmulDescAttributes_t attribute, const Value& value) {
  expect_blas(cublasLtMatmulDescSetAttribute(product.get(), attribute, &value, sizeof value),
              "describing a product");
}
template <class Value>
void set(const PreferenceHandle& preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const Value& value) {
  expect_blas(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
              "asking for algorithms");
}

LayoutHandle layout_of(DType dtype, int64_t rows, int64_t columns, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  expect_blas(cublasLtMatrixLayoutCreate(&layout, type_of(dtype), static_cast<uint64_t>(rows),
                                         static_cast<uint64_t>(columns), stride),
              "describing a matrix");
  return LayoutHandle(layout);
}

/// Whether the tensor cores may keep the sums of 8-bit products in their own, shorter form: with E4M3 on both
/// sides, that is in forward. Gradients (E5M2) keep f32.
bool sums_may_be_short(const GemmKey& key) {
  return key.a == DType::f8_e4m3 && key.b == DType::f8_e4m3;
}

GemmPlan describe(const GemmKey& key) {
  GemmPlan plan;
  cublasLtMatmulDesc_t product = nullptr;
  // Sums in f32; f32 operands are not shortened to TF32.
  expect_blas(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  plan.product = ProductHandle(product);
  const auto transposed = [](bool is) { return is ? CUBLAS_OP_T : CUBLAS_OP_N; };
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, transposed(key.is_a_transposed));
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSB, transposed(key.is_b_transposed));
  if (key.has_bias) set(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  if (sums_may_be_short(key)) set(plan.product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
  plan.a = key.is_a_transposed ? layout_of(key.a, key.k, key.m, key.a_stride)
                               : layout_of(key.a, key.m, key.k, key.a_stride);
  plan.b = key.is_b_transposed ? layout_of(key.b, key.n, key.k, key.b_stride)
                               : layout_of(key.b, key.k, key.n, key.b_stride);
  plan.c = layout_of(key.c, key.m, key.n, key.c_stride);
  return plan;
}

void set_pointers(const GemmPlan& plan, const GemmPointers& pointers) {
  if (pointers.bias != nullptr) set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, pointers.bias);
  if (pointers.a_factor == nullptr) return;
  set(plan.product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, pointers.a_factor);
  set(plan.product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, pointers.b_factor);
}

/// The part of the scratch that products work in.
struct Workspace {
  void* data = nullptr;
  int64_t bytes = 0;
};
Workspace workspace_of(const Context& context) {
  constexpr int64_t alignment = 256;
  const auto address = reinterpret_cast<uintptr_t>(context.scratch.data);
  const int64_t skipped = static_cast<int64_t>((alignment - address % alignment) % alignment);
  const int64_t bytes = context.scratch ? context.scratch.bytes() - skipped : 0;
  if (bytes <= 0) return {};
  return {static_cast<char*>(context.scratch.data) + skipped, std::min(bytes, gemm_workspace_bytes)};
}

cublasStatus_t enqueue(const Context& context, const GemmKey& key, const GemmPlan& plan,
                       const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, void* output) {
  const float alpha = 1, beta = key.accumulates ? 1.0f : 0.0f;
  const Workspace workspace = workspace_of(context);
  return cublasLtMatmul(libraries_of(context).blas(), plan.product.get(), &alpha, pointers.a, plan.a.get(),
                        pointers.b, plan.b.get(), &beta, pointers.c, plan.c.get(), output, plan.c.get(),
                        &algorithm, workspace.data, static_cast<size_t>(workspace.bytes),
                        static_cast<cudaStream_t>(context.stream->native()));
}

/// How parts of a long sum may be put together. Never in 16 bits; where bits must not differ from run to run
/// only by a pass over the workspace.
uint32_t reductions_of(const GemmKey& key, bool is_deterministic) {
  if (is_deterministic || key.c != DType::f32)
    return CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  return CUBLASLT_REDUCTION_SCHEME_MASK;
}

/// What the library would take, its first choice first.
std::vector<cublasLtMatmulHeuristicResult_t> candidates_of(const Context& context, const GemmKey& key,
                                                           const GemmPlan& plan) {
  const CudaLibraries& libraries = libraries_of(context);
  cublasLtMatmulPreference_t raw = nullptr;
  expect_blas(cublasLtMatmulPreferenceCreate(&raw), "asking for algorithms");
  const PreferenceHandle preference(raw);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      static_cast<uint64_t>(workspace_of(context).bytes));
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      reductions_of(key, libraries.options().is_deterministic));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(key.a_alignment));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(key.b_alignment));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(key.c_alignment));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(key.c_alignment));
  std::vector<cublasLtMatmulHeuristicResult_t> results(most_candidates);
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      libraries.blas(), plan.product.get(), plan.a.get(), plan.b.get(), plan.c.get(), plan.c.get(),
      preference.get(), most_candidates, results.data(), &count);
  results.resize(static_cast<size_t>(std::max(count, 0)));
  std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  check(status == CUBLAS_STATUS_SUCCESS && !results.empty(), ExitCode::resources,
        "cuBLASLt has no algorithm for the product {} with {} bytes of workspace: {}", text_of(key),
        workspace_of(context).bytes, cublasLtGetStatusString(status));
  return results;
}

bool is_capturing(const Context& context) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaError_t error =
      cudaStreamIsCapturing(static_cast<cudaStream_t>(context.stream->native()), &status);
  return error != cudaSuccess || status != cudaStreamCaptureStatusNone;
}

/// The best of a few runs in seconds; infinity for an algorithm that does not run.
double seconds_of(const Context& context, const GemmKey& key, const GemmPlan& plan,
                  const cublasLtMatmulAlgo_t& algorithm, const GemmPointers& pointers, void* output) {
  const Event begin(context.device, true), end(context.device, true);
  double best = std::numeric_limits<double>::infinity();
  for (int run = 0; run <= timed_runs; ++run) {
    context.stream->record(begin);
    if (enqueue(context, key, plan, algorithm, pointers, output) != CUBLAS_STATUS_SUCCESS)
      return std::numeric_limits<double>::infinity();
    context.stream->record(end);
    end.synchronize();
    if (run > 0) best = std::min(best, seconds_between(begin, end));  // the first one loads the kernel
  }
  return best;
}

/// Where trial products may be written. c itself where it is overwritten anyway; a sum would be added to
/// again and again, so its trials read c and write beside it. Empty where there is no memory for that.
class TrialOutput {
 public:
  TrialOutput(const Context& context, const GemmKey& key, void* c)
      : stream_(static_cast<cudaStream_t>(context.stream->native())), data_(c) {
    if (!key.accumulates) return;
    constexpr int64_t left_for_others = int64_t{256} << 20;
    const int64_t bytes = key.n * key.c_stride * size_bytes(key.c);
    data_ = nullptr;
    if (runtime::device_info(context.device.index).free_bytes < bytes + left_for_others) return;
    // In the stream's order: cudaMalloc and cudaFree wait for the whole device, where a collective may be
    // under way that waits for another rank, and that rank for this one.
    if (cudaMallocAsync(&beside_, static_cast<size_t>(bytes), stream_) != cudaSuccess) {
      beside_ = nullptr;
      cudaGetLastError();  // it would be told again by the next launch
    }
    data_ = beside_;
  }
  TrialOutput(const TrialOutput&) = delete;
  TrialOutput& operator=(const TrialOutput&) = delete;
  ~TrialOutput() {
    if (beside_ != nullptr) cudaFreeAsync(beside_, stream_);
  }

  void* data() const { return data_; }

 private:
  cudaStream_t stream_;
  void* data_;
  void* beside_ = nullptr;
};

/// The fastest candidate by trying all of them on the stream. Nothing where that is impossible.
std::optional<cublasLtMatmulHeuristicResult_t> fastest(
    const Context& context, const GemmKey& key, const GemmPlan& plan, const GemmPointers& pointers,
    std::span<const cublasLtMatmulHeuristicResult_t> candidates) {
  const TrialOutput output(context, key, pointers.c);
  if (output.data() == nullptr) return {};
  const cublasLtMatmulHeuristicResult_t* best = nullptr;
  double best_s = std::numeric_limits<double>::infinity();
  for (const cublasLtMatmulHeuristicResult_t& candidate : candidates) {
    const double s = seconds_of(context, key, plan, candidate.algo, pointers, output.data());
    if (s < best_s) best = &candidate, best_s = s;
  }
  if (best == nullptr) return {};
  AlgorithmChoice choice{.nanoseconds = static_cast<int64_t>(best_s * 1e9)};
  static_assert(sizeof choice.config == sizeof best->algo);
  std::copy_n(reinterpret_cast<const uint8_t*>(&best->algo), sizeof best->algo, choice.config.begin());
  libraries_of(context).algorithms.put(text_of(key), choice);
  log::debug("product {}: {:.1f} us, the best of {}", text_of(key), best_s * 1e6, candidates.size());
  return *best;
}

/// What an earlier run chose, if the library still takes it within the workspace.
std::optional<cublasLtMatmulHeuristicResult_t> remembered(const Context& context, const GemmKey& key,
                                                          const GemmPlan& plan) {
  const CudaLibraries& libraries = libraries_of(context);
  const AlgorithmChoice* choice = libraries.algorithms.find(text_of(key));
  if (choice == nullptr) return {};
  cublasLtMatmulHeuristicResult_t result{};
  std::copy_n(choice->config.begin(), sizeof result.algo, reinterpret_cast<uint8_t*>(&result.algo));
  const cublasLtMatmulAlgo_t algorithm = result.algo;
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(libraries.blas(), plan.product.get(), plan.a.get(), plan.b.get(), plan.c.get(),
                              plan.c.get(), &algorithm, &result);
  result.algo = algorithm;
  const bool fits = static_cast<int64_t>(result.workspaceSize) <= workspace_of(context).bytes;
  if (status != CUBLAS_STATUS_SUCCESS || !fits) return {};
  return result;
}

GemmPlan make_plan(const Context& context, const GemmKey& key, const GemmPointers& pointers) {
  const LibraryOptions& options = libraries_of(context).options();
  check(size_bytes(key.a) > 1 || libraries_of(context).has_8_bit_products(), ExitCode::usage,
        "this GPU has no products of 8-bit floats, which came with sm_89: use precision: bf16");
  GemmPlan plan = describe(key);
  set_pointers(plan, pointers);
  std::optional<cublasLtMatmulHeuristicResult_t> chosen = remembered(context, key, plan);
  if (!chosen) {
    const std::vector<cublasLtMatmulHeuristicResult_t> candidates = candidates_of(context, key, plan);
    // A choice by time may be another one the next time, and with it the last bits.
    const bool may_search = options.searches && !options.is_deterministic && candidates.size() > 1;
    if (may_search && !is_capturing(context)) chosen = fastest(context, key, plan, pointers, candidates);
    if (!chosen) chosen = candidates.front();
  }
  plan.algorithm = chosen->algo;
  plan.workspace_bytes = static_cast<int64_t>(chosen->workspaceSize);
  return plan;
}

}  // namespace

void run_product(Context& context, const GemmKey& key, const GemmPointers& pointers) {
  CudaLibraries& libraries = libraries_of(context);
  auto found = libraries.plans.find(key);
  if (found == libraries.plans.end())
    found = libraries.plans.emplace(key, make_plan(context, key, pointers)).first;
  const GemmPlan& plan = found->second;
  check(plan.workspace_bytes <= workspace_of(context).bytes,
        "the product {} was planned with {} bytes of workspace, {} are here", text_of(key),
        plan.workspace_bytes, workspace_of(context).bytes);
  set_pointers(plan, pointers);
  expect_blas(enqueue(context, key, plan, plan.algorithm, pointers, pointers.c), "a matrix product");
}

}  // namespace ptrain::cuda
