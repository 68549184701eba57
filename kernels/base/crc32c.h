// CRC-32C (Castagnoli), as the manifest of a checkpoint holds it per extent and TensorBoard per record.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ptrain {

/// CRC-32C of `bytes` bytes, continued from `crc` (0 to begin): crc32c(b, m, crc32c(a, n)) is that of a then
/// b.
uint32_t crc32c(const void* data, size_t bytes, uint32_t crc = 0);

}  // namespace ptrain
