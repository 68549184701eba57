#include "kernels/cuda/algorithm_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace ptrain::cuda {
namespace {

constexpr std::string_view first_line = "ptrain algorithms 1";
constexpr size_t most_bytes = 16 << 20;  // of a file: a shape takes about 250
constexpr size_t longest_key = 200;

bool is_key(std::string_view key) {
  const auto is_allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
  };
  return !key.empty() && key.size() <= longest_key && std::ranges::all_of(key, is_allowed);
}

/// The name on one line, whatever a driver says.
std::string printable(std::string name) {
  for (char& c : name)
    if (c < ' ' || c > '~') c = '?';
  return name;
}

std::optional<int64_t> number_of(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value < 0) return {};
  return value;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

std::optional<std::array<uint8_t, 64>> bytes_of(std::string_view hex) {
  std::array<uint8_t, 64> bytes{};
  if (hex.size() != 2 * bytes.size()) return {};
  for (size_t i = 0; i < bytes.size(); ++i) {
    const int high = digit_of(hex[2 * i]), low = digit_of(hex[2 * i + 1]);
    if (high < 0 || low < 0) return {};
    bytes[i] = static_cast<uint8_t>(16 * high + low);
  }
  return bytes;
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

/// Empty where the file cannot be read.
std::optional<std::string> text_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return {};
  std::string text(most_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

/// Writes and flushes a new file; the reason where that fails.
std::string write_file(const std::filesystem::path& path, std::string_view text) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return std::strerror(errno);
  std::string reason;
  while (reason.empty() && !text.empty()) {
    const ssize_t count = write(file, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      reason = std::strerror(errno);
    } else {
      text.remove_prefix(static_cast<size_t>(count));
    }
  }
  if (reason.empty() && fsync(file) != 0) reason = std::strerror(errno);
  if (close(file) != 0 && reason.empty()) reason = std::strerror(errno);
  return reason;
}

}  // namespace

AlgorithmCache::AlgorithmCache(AlgorithmOrigin origin) : origin_(std::move(origin)) {
  origin_.gpu = printable(origin_.gpu);
}

const AlgorithmChoice* AlgorithmCache::find(const std::string& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? nullptr : &found->second;
}

void AlgorithmCache::put(const std::string& key, const AlgorithmChoice& choice) {
  check(is_key(key), "an algorithm's key is \"{}\"", key);
  choices_[key] = choice;
}

std::string AlgorithmCache::text() const {
  std::string text =
      fmt::format("{}\ngpu {}\nlibrary {}\n", first_line, origin_.gpu, origin_.library_version);
  for (const auto& [key, choice] : choices_) {
    text += key + ' ';
    for (uint8_t byte : choice.config) text += fmt::format("{:02x}", byte);
    text += fmt::format(" {}\n", choice.nanoseconds);
  }
  return text + fmt::format("end {}\n", choices_.size());
}

std::string AlgorithmCache::read(std::string_view text) {
  if (text.size() > most_bytes) return fmt::format("it is longer than {} bytes", size_t{most_bytes});
  const std::vector<std::string_view> lines = split(text, '\n');
  if (lines[0] != first_line) return fmt::format("it does not begin with \"{}\"", first_line);
  // Three lines before the choices, one behind them, and nothing after its end.
  if (lines.size() < 5 || !lines.back().empty()) return "it is cut off";
  if (lines[1] != "gpu " + origin_.gpu)
    return fmt::format("it holds for \"{}\", this is \"gpu {}\"", printable(std::string(lines[1])),
                       origin_.gpu);
  if (lines[2] != fmt::format("library {}", origin_.library_version))
    return fmt::format("it holds for \"{}\" of the matrix library, this is {}",
                       printable(std::string(lines[2])), origin_.library_version);
  const size_t count = lines.size() - 5;
  if (lines[lines.size() - 2] != fmt::format("end {}", count)) return "it is cut off";
  std::map<std::string, AlgorithmChoice> read;
  for (size_t i = 3; i < 3 + count; ++i) {
    const std::vector<std::string_view> words = split(lines[i], ' ');
    if (words.size() != 3 || !is_key(words[0])) return fmt::format("line {} is not a choice", i + 1);
    const auto config = bytes_of(words[1]);
    const auto nanoseconds = number_of(words[2]);
    if (!config || !nanoseconds) return fmt::format("line {} is not a choice", i + 1);
    if (!read.emplace(words[0], AlgorithmChoice{*config, *nanoseconds}).second)
      return fmt::format("line {} chooses for a shape a second time", i + 1);
  }
  read.merge(choices_);  // one that is read goes before one that was there
  choices_ = std::move(read);
  return "";
}

void AlgorithmCache::load(const std::filesystem::path& path) {
  const std::optional<std::string> text = text_of(path);
  if (!text) return;
  const std::string reason = read(*text);
  if (!reason.empty())
    log::warn("the algorithms of {} are not used: {}; they are searched anew", path.string(), reason);
}

void AlgorithmCache::save(const std::filesystem::path& path) const {
  AlgorithmCache all(origin_);
  if (const std::optional<std::string> text = text_of(path)) all.read(*text);
  for (const auto& [key, choice] : choices_) all.choices_[key] = choice;
  const std::filesystem::path beside = path.string() + "." + std::to_string(getpid()) + ".tmp";
  std::error_code error;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  std::string reason = write_file(beside, all.text());
  if (reason.empty()) {
    std::filesystem::rename(beside, path, error);
    if (error) reason = error.message();
  }
  if (reason.empty()) return;
  std::filesystem::remove(beside, error);
  fail(ExitCode::resources, "cannot write the algorithms to {}: {}", path.string(), reason);
}

}  // namespace ptrain::cuda
