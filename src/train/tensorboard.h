// TensorBoard event files, written natively: scalars alone. The format is TFRecord (length, masked CRC-32C,
// payload) around protocol-buffer messages of type tensorflow.Event.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/appended_file.h"

namespace ptrain {

struct Scalar {
  std::string_view tag;
  double value = 0;
};

/// One record: an Event at `time` (Unix seconds) with the scalars of `step`.
std::string scalar_record(double time, int64_t step, const std::vector<Scalar>& scalars);
/// The first record of a file: the format's version.
std::string version_record(double time);

class TensorBoard {
 public:
  TensorBoard() = default;
  /// A new file events.out.tfevents.<time>.<host>.<pid> in `directory`. Errors: ExitCode::resources.
  TensorBoard(const std::filesystem::path& directory, double time);

  void write(double time, int64_t step, const std::vector<Scalar>& scalars);

 private:
  AppendedFile file_;
};

}  // namespace ptrain
