// Directories on their way to S3 while training goes on: one thread that queues, sends, verifies and says
// what may be deleted here. Not for how objects travel (s3.h) nor for the way back (fetch.h).
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "src/io/s3.h"

namespace ptrain {

/// Sends a directory so that nobody takes a half for a whole: an older last file there goes first, then come
/// all files but `last`, then a listing must show each with its size, then `last`, then it must show that
/// too. Failed tries send only what is missing. A checkpoint's `last`, MANIFEST.json, has the checksums of
/// all else: where the same one is there, what has its size is not sent again. Errors: ExitCode::input for a
/// directory without `last`, or with links in it; else those of S3.
void upload_directory(const S3& s3, const std::filesystem::path& directory, const std::string& place,
                      const std::string& last, std::stop_token stop = {});

struct UploaderOptions {
  std::string place;       // "s3://bucket/prefix"; names are put below it
  int64_t most_local = 4;  // how many directories stay here because they are not in S3 yet, at most
};

/// Member functions may be called from any thread; none waits for S3.
class Uploader {
 public:
  Uploader(S3 s3, UploaderOptions options);
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  ~Uploader();  // ends what is under way

  /// A whole directory, to place/name. `last` marks it as whole there.
  void add(const std::filesystem::path& directory, const std::string& name, const std::string& last);

  /// Whether this directory may be deleted here. Not before it is verified in S3, unless most_local newer
  /// ones wait too: then it is given up with a warning.
  bool may_delete(const std::filesystem::path& directory);

  bool is_idle() const;
  /// What is under way or waits, for a message: "checkpoints/step-00000500, model".
  std::string waiting() const;
  /// What could not be sent and is still here, with the reasons.
  std::vector<std::string> failures() const;
  /// Once more what could not be sent and is still here.
  void try_again();

 private:
  enum class State { waiting, under_way, done, failed, given_up };
  struct Item {
    std::filesystem::path directory;
    std::string name;
    std::string last;
    State state = State::waiting;
    std::string reason = {};
    std::stop_source stop = {};
  };

  void work(std::stop_token stop);
  bool is_open(const Item& item) const {
    return item.state == State::waiting || item.state == State::under_way;
  }

  S3 s3_;
  UploaderOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<std::shared_ptr<Item>> items_;  // as they came; older ones that are done are dropped
  std::jthread thread_;                      // last: it starts when all else is there, and ends first
};

}  // namespace ptrain
