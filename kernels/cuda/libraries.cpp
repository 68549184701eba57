// The start of a GPU's libraries, and what they say of themselves.
#include "kernels/cuda/libraries.h"

#include "kernels/base/runtime.h"
#include "kernels/cuda/twins.h"

namespace ptrain::cuda {
namespace {

/// "13.1.0" of the library's own number.
std::string dotted(size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

BlasHandle start_blas(Device device) {
  const size_t version = cublasLtGetVersion();
  check(version / 10000 == CUBLAS_VER_MAJOR, ExitCode::resources,
        "cuBLASLt is version {}, this build needs {}: put that library first on the library path, or build "
        "anew",
        dotted(version), dotted(CUBLAS_VERSION));
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = cublasLtCreate(&handle);
  check(status == CUBLAS_STATUS_SUCCESS, ExitCode::resources,
        "cuBLASLt {} does not start on GPU {} ({}): {}. It needs a driver for CUDA {} and some free device "
        "memory ({} bytes are free)",
        dotted(version), device.index, runtime::device_info(device.index).name,
        cublasLtGetStatusString(status), CUBLAS_VER_MAJOR, runtime::device_info(device.index).free_bytes);
  return BlasHandle(handle);
}

}  // namespace

void expect_blas(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, ExitCode::resources, "cuBLASLt: {} failed: {} ({})", what,
        cublasLtGetStatusString(status), cublasLtGetStatusName(status));
}

CudaLibraries::CudaLibraries(Device device, const LibraryOptions& options)
    : algorithms({runtime::device_info(device.index).name, cublasLtGetVersion()}),
      device_(device),
      options_(options) {
  runtime::use_device(device.index);
  const runtime::DeviceInfo info = runtime::device_info(device.index);
  has_8_bit_products_ = info.major > 8 || (info.major == 8 && info.minor >= 9);
  blas_ = start_blas(device);
  attention = make_cudnn_attention(device, options);
  // Which algorithm was fastest differs from day to day: a run whose bits must not takes none from a file.
  if (!options.algorithm_cache.empty() && !options.is_deterministic) algorithms.load(options.algorithm_cache);
}

void CudaLibraries::save() const {
  if (!options_.algorithm_cache.empty() && !options_.is_deterministic)
    algorithms.save(options_.algorithm_cache);
}

CudaLibraries& libraries_of(const Context& context) {
  check(context.libraries != nullptr, "a GPU's context without its libraries");
  return static_cast<CudaLibraries&>(*context.libraries);
}

std::unique_ptr<Libraries> make_libraries(Device device, const LibraryOptions& options) {
  return std::make_unique<CudaLibraries>(device, options);
}

LibraryVersions library_versions() {
  return {.cublaslt = static_cast<int64_t>(cublasLtGetVersion()), .cudnn = cudnn_version()};
}

}  // namespace ptrain::cuda
