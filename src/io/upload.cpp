#include "src/io/upload.h"

#include <algorithm>
#include <set>

#include "kernels/base/clock.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "src/io/file.h"
#include "src/io/manifest.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t largest_last_bytes = int64_t{1} << 30;

/// The files below a directory with their sizes. Links are refused: what they point to was never meant.
S3Listing files_below(const fs::path& directory) {
  S3Listing files;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(directory)) {
      const fs::file_status status = entry.symlink_status();
      const std::string name = entry.path().lexically_relative(directory).string();
      if (fs::is_directory(status)) continue;
      check(fs::is_regular_file(status), ExitCode::input, "{}: is no file of its own and is not uploaded",
            entry.path().string());
      check(is_plain_path(name), ExitCode::input, "{}: a name that S3 programs may read differently",
            entry.path().string());
      files[name] = static_cast<int64_t>(entry.file_size());
    }
  } catch (const fs::filesystem_error& error) {
    fail(ExitCode::input, "{}: cannot be looked through: {}", directory.string(), error.what());
  }
  return files;
}

/// One directory on its way. Each member function may be called again after it has thrown.
class Sending {
 public:
  Sending(const S3& s3, const fs::path& directory, const std::string& place, const std::string& last,
          std::stop_token stop)
      : s3_(s3), directory_(directory), place_(place), last_(last), stop_(std::move(stop)) {
    files_ = files_below(directory_);
    check(files_.contains(last_), ExitCode::input, "{}: has no {}", directory_.string(), last_);
  }

  /// Our own last file, byte by byte, proves that what is there is ours; any other one must go, since it
  /// would vouch for files that are about to change.
  void judge_what_is_there() {
    if (is_judged_) return;
    there_ = s3_.list(place_, stop_);
    if (there_.contains(last_)) {
      const bool is_proof = last_ == manifest_name;
      if (is_proof && s3_.read(object(last_), stop_) == read_text(directory_ / last_, largest_last_bytes)) {
        for (const auto& [name, bytes] : there_) sent_.insert(name);
      } else {
        s3_.remove(object(last_), stop_);
      }
    }
    is_judged_ = true;
  }

  void send_all_but_last() {
    there_ = s3_.list(place_, stop_);
    for (const auto& [name, bytes] : files_) {
      if (name != last_) send(name);
    }
    there_ = s3_.list(place_, stop_);
    for (const auto& [name, bytes] : files_) {
      if (name != last_) check_is_there(name);
    }
  }

  void send_last() {
    send(last_);
    there_ = s3_.list(place_, stop_);
    check_is_there(last_);
  }

 private:
  std::string object(const std::string& name) const { return place_ + "/" + name; }

  int64_t bytes_there(const std::string& name) const {
    const auto it = there_.find(name);
    return it == there_.end() ? -1 : it->second;
  }

  void send(const std::string& name) {
    if (sent_.contains(name) && bytes_there(name) == files_.at(name)) return;
    s3_.put(directory_ / name, object(name), stop_);
    sent_.insert(name);
  }

  void check_is_there(const std::string& name) const {
    check(bytes_there(name) == files_.at(name), ExitCode::resources, "{}: {} bytes were sent, but {}",
          object(name), files_.at(name),
          bytes_there(name) < 0 ? "it is not there" : fmt::format("{} are there", bytes_there(name)));
  }

  const S3& s3_;
  fs::path directory_;
  std::string place_, last_;
  std::stop_token stop_;
  S3Listing files_, there_;
  std::set<std::string> sent_;  // by us, or proven to be ours
  bool is_judged_ = false;
};

}  // namespace

void upload_directory(const S3& s3, const fs::path& directory, const std::string& place,
                      const std::string& last, std::stop_token stop) {
  Sending sending(s3, directory, place, last, stop);
  s3.retry(
      [&] {
        sending.judge_what_is_there();
        sending.send_all_but_last();
        sending.send_last();
      },
      stop);
}

Uploader::Uploader(S3 s3, UploaderOptions options)
    : s3_(std::move(s3)),
      options_(std::move(options)),
      thread_([this](std::stop_token stop) { work(std::move(stop)); }) {}

Uploader::~Uploader() {
  thread_.request_stop();
  const std::lock_guard lock(mutex_);
  for (const auto& item : items_) item->stop.request_stop();
}

void Uploader::add(const fs::path& directory, const std::string& name, const std::string& last) {
  const std::lock_guard lock(mutex_);
  for (const auto& item : items_) {
    if (item->name != name || !is_open(*item)) continue;
    item->state = State::given_up;  // the same step once more, with other contents
    item->stop.request_stop();
  }
  std::erase_if(items_, [&](const auto& item) { return item->state == State::done || item->name == name; });
  items_.push_back(std::make_shared<Item>(Item{fs::absolute(directory), name, last}));
  wake_.notify_all();
}

bool Uploader::may_delete(const fs::path& directory) {
  const std::lock_guard lock(mutex_);
  const fs::path path = fs::absolute(directory);
  int64_t newer = 0;
  for (auto it = items_.rbegin(); it != items_.rend(); ++it) {
    Item& item = **it;
    const bool is_missing = is_open(item) || item.state == State::failed;
    if (item.directory != path) {
      newer += is_missing;
      continue;
    }
    if (!is_missing) return true;
    if (newer < options_.most_local) return false;
    item.state = State::given_up;
    item.stop.request_stop();
    log::warn("{} is deleted here before it was in {}: {} newer ones wait for their upload too", item.name,
              options_.place, newer);
    return true;
  }
  return true;
}

bool Uploader::is_idle() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::none_of(items_, [&](const auto& item) { return is_open(*item); });
}

std::string Uploader::waiting() const {
  const std::lock_guard lock(mutex_);
  std::string names;
  for (const auto& item : items_) {
    if (is_open(*item)) names += (names.empty() ? "" : ", ") + item->name;
  }
  return names;
}

std::vector<std::string> Uploader::failures() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> reasons;
  for (const auto& item : items_) {
    std::error_code ignored;
    if (item->state == State::failed && fs::exists(item->directory, ignored)) reasons.push_back(item->reason);
  }
  return reasons;
}

void Uploader::try_again() {
  const std::lock_guard lock(mutex_);
  for (const auto& item : items_) {
    std::error_code ignored;
    if (item->state == State::failed && fs::exists(item->directory, ignored)) item->state = State::waiting;
  }
  wake_.notify_all();
}

void Uploader::work(std::stop_token stop) {
  const auto next = [&]() -> std::shared_ptr<Item> {
    const auto it =
        std::ranges::find_if(items_, [](const auto& item) { return item->state == State::waiting; });
    return it == items_.end() ? nullptr : *it;
  };
  while (true) {
    std::shared_ptr<Item> item;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, stop, [&] { return next() != nullptr; });
      if (stop.stop_requested()) return;
      item = next();
      item->state = State::under_way;
    }
    const double begin_s = now_s();
    const std::string place = options_.place + "/" + item->name;
    std::string reason;
    try {
      upload_directory(s3_, item->directory, place, item->last, item->stop.get_token());
    } catch (const std::exception& error) {  // no error of a copy may end a training
      reason = error.what();
    }
    const double seconds = now_s() - begin_s;
    const std::lock_guard lock(mutex_);
    if (stop.stop_requested() || item->state == State::given_up) continue;
    item->state = reason.empty() ? State::done : State::failed;
    item->reason = reason;
    if (reason.empty()) {
      log::info("uploaded {} in {:.1f} s", place, seconds);
    } else {
      log::warn("{} is not uploaded: {}; training goes on, the local copy stays", item->name, reason);
    }
  }
}

}  // namespace ptrain
