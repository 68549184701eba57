#include "src/train/store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace ptrain {
namespace {

void write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    check(n > 0, ExitCode::resources, "{}: cannot be written: {}", path, std::strerror(errno));
    text.remove_prefix(static_cast<size_t>(n));
  }
}

/// The rows to keep: whole lines of steps up to last_step.
std::string kept_rows(const std::string& text, int64_t last_step) {
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn
    const std::string_view line(text.data() + begin, end - begin);
    const Json row = Json::parse(line, nullptr, false);
    if (row.is_object() && row.contains("step") && row["step"].is_number_integer() &&
        row["step"] <= last_step) {
      kept.append(line).push_back('\n');
    }
    begin = end + 1;
  }
  return kept;
}

}  // namespace

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

std::filesystem::path making_of(const std::filesystem::path& directory) {
  return directory.parent_path() / (".tmp-" + directory.filename().string());
}

void replace_by_made(const std::filesystem::path& directory) {
  const std::filesystem::path old = directory.parent_path() / (".trash-" + directory.filename().string());
  std::filesystem::remove_all(old);
  if (std::filesystem::exists(directory)) std::filesystem::rename(directory, old);
  std::filesystem::rename(making_of(directory), directory);
  std::filesystem::remove_all(old);
}

RunLock::RunLock(const std::filesystem::path& output, const std::string& job) {
  const std::string path = (output / ".lock").string();
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check(fd_ >= 0, ExitCode::resources, "output: {} cannot be written: {}", path, std::strerror(errno));
  struct flock whole_file {};
  whole_file.l_type = F_WRLCK;
  whole_file.l_whence = SEEK_SET;
  if (::fcntl(fd_, F_OFD_SETLK, &whole_file) != 0) {
    char owner[512] = {};
    const ssize_t n = ::pread(fd_, owner, sizeof owner - 1, 0);
    ::close(std::exchange(fd_, -1));
    fail(ExitCode::usage,
         "output: {} belongs to a run that is still going ({}); wait for it, stop it, or give another output",
         output.string(), n > 0 ? owner : "its owner has not said who it is");
  }
  const std::string owner =
      fmt::format("host {}, pid {}, job {}", host_name(), ::getpid(), job.empty() ? "none" : job);
  const bool is_empty = ::ftruncate(fd_, 0) == 0;  // before errno is read
  check(is_empty, ExitCode::resources, "output: {} cannot be written: {}", path,
        std::strerror(errno));
  write_all(fd_, owner, path);
}

RunLock::RunLock(RunLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
RunLock& RunLock::operator=(RunLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
RunLock::~RunLock() {
  if (fd_ >= 0) ::close(fd_);
}

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t last_step) : path_(path.string()) {
  if (std::filesystem::exists(path)) {
    const std::string text = read_text(path, int64_t{4} << 30);
    const std::string kept = kept_rows(text, last_step);
    if (kept != text) write_text(path, kept);
  }
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  check(fd_ >= 0, ExitCode::resources, "{}: cannot be written: {}", path_, std::strerror(errno));
}

MetricsFile::MetricsFile(MetricsFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
MetricsFile& MetricsFile::operator=(MetricsFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}
MetricsFile::~MetricsFile() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsFile::append(const Json& row) {
  write_all(fd_, row.dump() + '\n', path_);
}

}  // namespace ptrain
