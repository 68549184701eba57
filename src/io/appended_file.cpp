#include "src/io/appended_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "src/io/file.h"

namespace ptrain {

AppendedFile::AppendedFile(const std::filesystem::path& path, Start start)
    : fd_(open_output(path, O_WRONLY | O_APPEND | (start == Start::anew ? O_EXCL : 0))),
      path_(path.string()) {}

AppendedFile::AppendedFile(AppendedFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      waiting_(std::exchange(other.waiting_, {})),
      is_failing_(other.is_failing_) {}

AppendedFile& AppendedFile::operator=(AppendedFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(waiting_, other.waiting_);
  std::swap(is_failing_, other.is_failing_);
  return *this;
}

AppendedFile::~AppendedFile() {
  if (fd_ < 0) return;
  if (!flush()) log::warn("{}: its last {} bytes could not be written and are lost", path_, waiting_.size());
  ::close(fd_);
}

/// True where nothing waits any more. Else errno says why.
bool AppendedFile::flush() {
  while (!waiting_.empty()) {
    const ssize_t n = ::write(fd_, waiting_.data(), waiting_.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    waiting_.erase(0, static_cast<size_t>(n));
  }
  return true;
}

void AppendedFile::append(std::string_view record) {
  waiting_ += record;
  if (flush()) {
    if (std::exchange(is_failing_, false)) log::info("{}: can be written again, nothing is lost", path_);
    return;
  }
  const char* reason = std::strerror(errno);
  check(waiting_bytes() <= most_waiting_bytes, ExitCode::resources,
        "{}: cannot be written for so long that {} bytes wait: {}", path_, waiting_.size(), reason);
  if (!std::exchange(is_failing_, true))
    log::warn("{}: cannot be written: {}; its rows wait in memory, training goes on", path_, reason);
}

}  // namespace ptrain
