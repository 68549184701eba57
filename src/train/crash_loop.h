// Whether starting again still helps: <output>/restarts.json keeps the starts that did not end in order, with
// the step that each began from. Not for why one ended: failure.json is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/io/json.h"

namespace ptrain {

/// A start that has not ended in order, or not yet.
struct NotedStart {
  int64_t step = 0;  // of the checkpoint that it went on from; 0: none
  std::string run;   // digest of configuration and ranks
  std::string host;  // of the first rank
  double time = 0;   // Unix
  Json failure;      // its failure.json; null where it left no word
  bool operator==(const NotedStart&) const = default;
};

/// How many of the last starts began from `step` as the same run: those that brought nothing.
int64_t fruitless_starts(const std::vector<NotedStart>& starts, int64_t step, const std::string& run);

/// On the first rank alone. A file that cannot be read is as none.
class RestartNotes {
 public:
  static constexpr size_t most_kept = 32;

  RestartNotes() = default;
  /// Reads what earlier starts left, and the failure.json of the last one beside it.
  explicit RestartNotes(const std::filesystem::path& output);

  /// Notes a start. Errors: no_progress where `most` (0: any number) starts before it brought nothing; says
  /// what is known of the last one. resources where the file cannot be written.
  void begin(const NotedStart& start, int64_t most);
  /// The start has ended in order: saved, done. What was noted is forgotten.
  void end();
  /// The start has found an error of the user's, which does not count.
  void withdraw();

  const std::vector<NotedStart>& starts() const { return starts_; }

 private:
  void write() const;

  std::filesystem::path path_;
  std::vector<NotedStart> starts_;
  bool has_begun_ = false;
};

}  // namespace ptrain
