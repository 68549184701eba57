// The choice of the device's libraries.
#include "kernels/ops/libraries.h"

#include "kernels/cuda/twins.h"

namespace ptrain {

std::unique_ptr<Libraries> make_libraries(Device device, const LibraryOptions& options) {
  return device.kind == DeviceKind::cpu ? nullptr : cuda::make_libraries(device, options);
}

LibraryVersions library_versions(DeviceKind kind) {
  return kind == DeviceKind::cpu ? LibraryVersions{} : cuda::library_versions();
}

}  // namespace ptrain
