// What a file or directory holds, as text for people: checkpoint, model directory, safetensors, GGUF, HDF5.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ptrain {

enum class Checksums { skip, verify };

struct Inspection {
  std::string text;
  std::vector<std::string> faults;  // damaged places, one sentence each
  int64_t verified_bytes = 0;       // that had a checksum, and were compared with it
  int64_t read_bytes = 0;           // that had none: they can be read, and are finite numbers
};

/// Errors: ExitCode::input: nothing there, a kind of file that is not known, a header that is broken, a
/// pickle.
Inspection inspect(const std::filesystem::path& path, Checksums checksums);

}  // namespace ptrain
