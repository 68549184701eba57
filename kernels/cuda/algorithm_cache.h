// The algorithms chosen for matrix products, kept as text from run to run. Values and files only: what an
// algorithm's bytes mean, the library alone knows.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace ptrain::cuda {

/// Where a choice holds: another GPU or version of the library has other algorithms.
struct AlgorithmOrigin {
  std::string gpu;  // its name
  uint64_t library_version = 0;

  bool operator==(const AlgorithmOrigin&) const = default;
};

struct AlgorithmChoice {
  std::array<uint8_t, 64> config{};  // as the library wrote it
  int64_t nanoseconds = 0;           // one product, when it was chosen

  bool operator==(const AlgorithmChoice&) const = default;
};

/// Choices of one origin by the text of their shape: letters, digits, '.', '-' and '_'.
class AlgorithmCache {
 public:
  explicit AlgorithmCache(AlgorithmOrigin origin);

  /// Null where none was made.
  const AlgorithmChoice* find(const std::string& key) const;
  void put(const std::string& key, const AlgorithmChoice& choice);
  size_t size() const { return choices_.size(); }

  std::string text() const;
  /// Takes over the choices of a text as text() writes it. Any other is refused whole: then returns why, and
  /// nothing has changed; else an empty text.
  std::string read(std::string_view text);

  /// Reads a file. One that is not there, damaged, or of another origin changes nothing; but for the first
  /// that is told as a warning.
  void load(const std::filesystem::path& path);
  /// Replaces the file at once by these choices and those of others that it holds by now. Errors
  /// (resources): it cannot be written.
  void save(const std::filesystem::path& path) const;

 private:
  AlgorithmOrigin origin_;
  std::map<std::string, AlgorithmChoice> choices_;
};

}  // namespace ptrain::cuda
