#include "src/train/store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
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

bool has_evaluation(const std::filesystem::path& metrics, int64_t step) {
  std::ifstream file(metrics);
  for (std::string line; std::getline(file, line);) {
    const Json row = Json::parse(line, nullptr, false);
    if (row.is_object() && row.contains("eval_loss") && row.contains("step") && row["step"] == step)
      return true;
  }
  return false;
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
