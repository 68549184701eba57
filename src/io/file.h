// Files by position: open, read, write and sync with every return code checked, path and reason in every
// message. Not for text or JSON (json.h) nor for what the bytes mean.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ptrain {

/// A file of an output directory, made where there is none: its descriptor. flags: as open(2)'s. A symbolic
/// link of that name is refused: who else may write there must not choose what is overwritten. Errors:
/// ExitCode::resources.
int open_output(const std::filesystem::path& path, int flags);

/// One open file. Const member functions may be called from several threads at once. Move-only.
class File {
 public:
  /// An existing regular file, for reading. Errors: ExitCode::input: missing, not a regular file, not
  /// readable.
  static File open(const std::filesystem::path& path);
  /// An existing file, for writing into. Errors: ExitCode::resources.
  static File open_for_writing(const std::filesystem::path& path);
  /// A new file of `bytes` zeros, in the place of an older one. Errors: ExitCode::resources, a full disk
  /// included where the file system can tell beforehand.
  static File create(const std::filesystem::path& path, int64_t bytes);

  File() = default;
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  /// All of `bytes` at `offset`. Errors: ExitCode::input where the file ends before.
  void read_at(int64_t offset, void* data, int64_t bytes) const;
  /// All of `bytes` at `offset`. Errors: ExitCode::resources (disk full, quota, device).
  void write_at(int64_t offset, const void* data, int64_t bytes) const;
  /// Returns once what was written is on the disk. Errors: ExitCode::resources.
  void sync() const;
  /// Closes a file that was written; some file systems report a failed write only here. Errors:
  /// ExitCode::resources.
  void close();

  int64_t bytes() const { return bytes_; }  // as it was opened or created
  const std::filesystem::path& path() const { return path_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  File(int fd, std::filesystem::path path, int64_t bytes) : fd_(fd), path_(std::move(path)), bytes_(bytes) {}

  int fd_ = -1;
  std::filesystem::path path_;
  int64_t bytes_ = 0;
};

/// Makes the names in a directory durable. Errors: ExitCode::resources.
void sync_directory(const std::filesystem::path& directory);
/// Renames within one file system. Errors: ExitCode::resources.
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);
/// Deletes a file or a whole directory; what cannot be deleted is said in a warning. Returns whether it is
/// gone.
bool remove_tree(const std::filesystem::path& path);
/// Bytes that may still be written to the file system of a directory; nothing where it does not tell.
std::optional<int64_t> free_bytes(const std::filesystem::path& directory);
/// Makes a directory and its parents. Errors: ExitCode::resources.
void make_directories(const std::filesystem::path& directory);

/// A whole file as text. Errors: ExitCode::input (missing, not a regular file, larger than max_bytes).
std::string read_text(const std::filesystem::path& path, int64_t max_bytes);

/// Writes a file so that readers see the old or the new content, never half: temporary name, fsync, rename.
/// Errors: ExitCode::resources with path and reason.
void write_text(const std::filesystem::path& path, std::string_view text);

}  // namespace ptrain
