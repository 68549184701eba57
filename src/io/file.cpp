#include "src/io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/progress.h"

namespace ptrain {
namespace {

// A call stands in a statement of its own before its check: errno, as an argument of the check, might be read
// first.

// Linux moves at most 2 GiB - 4 KiB in one call. Shorter ones show in time that the disk still answers.
constexpr int64_t call_bytes = int64_t{1} << 26;

int64_t regular_file_bytes(int fd, const std::filesystem::path& path, ExitCode code) {
  struct stat status {};
  const bool is_done = ::fstat(fd, &status) == 0;
  check(is_done, code, "{}: {}", path.string(), std::strerror(errno));
  check(S_ISREG(status.st_mode), code, "{}: not a regular file", path.string());
  return status.st_size;
}

}  // namespace

int open_output(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
  check(fd >= 0, ExitCode::resources, "{}: cannot be written: {}", path.string(),
        errno == ELOOP ? "it is a symbolic link, and nothing is written through one; remove it"
                       : std::strerror(errno));
  return fd;
}

File File::open(const std::filesystem::path& path) {
  // Without O_NONBLOCK a pipe under a model's name would hang the open.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  check(fd >= 0, ExitCode::input, "{}: cannot be opened: {}", path.string(), std::strerror(errno));
  File file(fd, path, 0);
  file.bytes_ = regular_file_bytes(fd, path, ExitCode::input);
  return file;
}

File File::open_for_writing(const std::filesystem::path& path) {
  // Not for reading too: an NFS client would then read pages, and write back whole ones over what ranks of
  // other nodes write beside.
  const int fd = ::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  check(fd >= 0, ExitCode::resources, "{}: cannot be opened for writing: {}", path.string(),
        std::strerror(errno));
  File file(fd, path, 0);
  file.bytes_ = regular_file_bytes(fd, path, ExitCode::resources);
  return file;
}

File File::create(const std::filesystem::path& path, int64_t bytes) {
  File file(open_output(path, O_RDWR | O_TRUNC), path, bytes);
  // fallocate finds a full disk now; where the file system has none, the size alone is set.
  if (bytes > 0 && ::fallocate(file.fd_, 0, 0, bytes) != 0) {
    check(errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR, ExitCode::resources,
          "{}: no room for its {} bytes: {}", path.string(), bytes, std::strerror(errno));
    const bool is_done = ::ftruncate(file.fd_, bytes) == 0;
    check(is_done, ExitCode::resources, "{}: cannot be made {} bytes long: {}", path.string(), bytes,
          std::strerror(errno));
  }
  return file;
}

File::File(File&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), bytes_(other.bytes_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

void File::read_at(int64_t offset, void* data, int64_t bytes) const {
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pread(fd_, to, static_cast<size_t>(std::min(bytes, call_bytes)), offset);
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, ExitCode::input, "{}: cannot be read at byte {}: {}", path_.string(), offset,
          std::strerror(errno));
    progress::tick();
    check(n > 0, ExitCode::input, "{}: ends at byte {}, {} more were expected", path_.string(), offset,
          bytes);
    to += n;
    offset += n;
    bytes -= n;
  }
}

void File::write_at(int64_t offset, const void* data, int64_t bytes) const {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, from, static_cast<size_t>(std::min(bytes, call_bytes)), offset);
    if (n < 0 && errno == EINTR) continue;
    check(n > 0, ExitCode::resources, "{}: cannot be written at byte {}: {}", path_.string(), offset,
          n == 0 ? "nothing was written" : std::strerror(errno));
    progress::tick();
    from += n;
    offset += n;
    bytes -= n;
  }
}

void File::sync() const {
  const bool is_done = ::fsync(fd_) == 0;
  check(is_done, ExitCode::resources, "{}: cannot be brought to the disk: {}", path_.string(),
        std::strerror(errno));
}

void File::close() {
  if (fd_ < 0) return;
  const bool is_done = ::close(std::exchange(fd_, -1)) == 0;
  check(is_done, ExitCode::resources, "{}: closing it failed: {}", path_.string(), std::strerror(errno));
}

void sync_directory(const std::filesystem::path& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  check(fd >= 0, ExitCode::resources, "{}: cannot be opened: {}", directory.string(), std::strerror(errno));
  const int result = ::fsync(fd);
  const int reason = errno;
  ::close(fd);
  // Some network file systems have no fsync for directories: their renames are durable by themselves.
  check(result == 0 || reason == EINVAL || reason == EROFS, ExitCode::resources,
        "{}: cannot be brought to the disk: {}", directory.string(), std::strerror(reason));
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  const bool is_done = ::rename(from.c_str(), to.c_str()) == 0;
  check(is_done, ExitCode::resources, "{}: cannot be renamed to {}: {}", from.string(), to.string(),
        std::strerror(errno));
}

bool remove_tree(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) log::warn("{}: cannot be removed: {}", path.string(), error.message());
  return !error;
}

std::optional<int64_t> free_bytes(const std::filesystem::path& directory) {
  struct statvfs status {};
  if (::statvfs(directory.c_str(), &status) != 0 || status.f_blocks == 0) return std::nullopt;
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

void make_directories(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  check(!error && std::filesystem::is_directory(directory, error), ExitCode::resources,
        "{}: cannot be made: {}", directory.string(), error ? error.message() : "it is not a directory");
}

std::string read_text(const std::filesystem::path& path, int64_t max_bytes) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check(status.type() != std::filesystem::file_type::none, ExitCode::input, "{}: cannot be read: {}",
        path.string(), error.message());
  check(std::filesystem::exists(status), ExitCode::input, "{}: no such file", path.string());
  check(std::filesystem::is_regular_file(status), ExitCode::input, "{}: not a regular file", path.string());
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
  check(!error, ExitCode::input, "{}: {}", path.string(), error.message());
  check(bytes <= max_bytes, ExitCode::input, "{}: {} bytes, more than the {} that are accepted here",
        path.string(), bytes, max_bytes);
  std::ifstream file(path, std::ios::binary);
  check(file.good(), ExitCode::input, "{}: cannot be read: {}", path.string(), std::strerror(errno));
  std::string text(static_cast<size_t>(bytes), '\0');
  file.read(text.data(), bytes);
  check(file.gcount() == bytes, ExitCode::input, "{}: {} bytes expected, {} read", path.string(), bytes,
        int64_t{file.gcount()});
  return text;
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  const std::string temporary = path.string() + ".tmp";
  File file = File::create(temporary, 0);
  file.write_at(0, text.data(), std::ssize(text));
  file.sync();
  file.close();
  rename_path(temporary, path);
}

}  // namespace ptrain
