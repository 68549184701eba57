// A file of the output directory that grows at its end: metrics, events, traces. Where the disk takes
// nothing, what was to be written waits in memory, so that a full disk ends no training.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace ptrain {

class AppendedFile {
 public:
  enum class Start { go_on, anew };  // anew: refused where something of that name is there

  AppendedFile() = default;
  /// Errors: ExitCode::resources, naming path and reason. A symbolic link is refused.
  AppendedFile(const std::filesystem::path& path, Start start);
  AppendedFile(AppendedFile&& other) noexcept;
  AppendedFile& operator=(AppendedFile&& other) noexcept;
  /// Tries once more what waits, and warns of what is lost.
  ~AppendedFile();

  bool is_open() const { return fd_ >= 0; }

  /// By one write() as far as the system allows. What cannot be written is warned of once, and tried again
  /// with the next record. Errors (ExitCode::resources): more than most_waiting_bytes wait.
  void append(std::string_view record);
  int64_t waiting_bytes() const { return std::ssize(waiting_); }

  static constexpr int64_t most_waiting_bytes = int64_t{64} << 20;

 private:
  bool flush();

  int fd_ = -1;
  std::string path_, waiting_;
  bool is_failing_ = false;
};

}  // namespace ptrain
