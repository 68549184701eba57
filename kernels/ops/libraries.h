// The libraries behind a device's ops: their handles, and the algorithms chosen for the shapes met so far.
#pragma once

#include <filesystem>
#include <memory>

#include "kernels/base/device.h"

namespace ptrain {

struct LibraryOptions {
  std::filesystem::path algorithm_cache;  // of matrix products, kept from run to run; empty: none is kept
  bool is_deterministic = false;          // only algorithms that give the same bits every time
  bool uses_own_attention = false;        // never the library's: to compare the two
  bool searches = true;  // algorithms are tried when a shape is first met: the host waits then
};

/// One a rank, made before the first op. What it is differs by device; its ops alone know.
class Libraries {
 public:
  virtual ~Libraries() = default;
  /// Writes down what was chosen, where a file was named. Errors (resources): the file cannot be written.
  virtual void save() const = 0;
};

/// Null on a CPU. Errors (resources): a library that cannot start, with its version and what it asks for.
std::unique_ptr<Libraries> make_libraries(Device device, const LibraryOptions& options);

/// What is linked in, as each library counts its versions: 130100 is cuBLASLt 13.1.0, 91900 is cuDNN 9.19.0;
/// 0 where there is none.
struct LibraryVersions {
  int64_t cublaslt = 0;
  int64_t cudnn = 0;
};
LibraryVersions library_versions(DeviceKind kind);

}  // namespace ptrain
