#include "src/train/crash_loop.h"

#include <utility>

#include "kernels/base/log.h"
#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

Json to_json(const NotedStart& start) {
  return {{"step", start.step},
          {"run", start.run},
          {"host", start.host},
          {"time", start.time},
          {"failure", start.failure}};
}

NotedStart start_of(const Json& json) {
  return {.step = json.at("step").get<int64_t>(),
          .run = json.at("run").get<std::string>(),
          .host = json.at("host").get<std::string>(),
          .time = json.at("time").get<double>(),
          .failure = json.at("failure")};
}

std::vector<NotedStart> read_starts(const fs::path& path) {
  std::vector<NotedStart> starts;
  if (!fs::exists(path)) return starts;
  try {
    const Json json = read_json(path);
    for (const Json& each : json.at("starts")) starts.push_back(start_of(each));
  } catch (const std::exception& error) {
    log::warn("{}: cannot be read, so earlier starts do not count: {}", path.string(), error.what());
    starts.clear();
  }
  return starts;
}

/// What failure.json says, in a line.
std::string last_words(const NotedStart& start) {
  const Json& said = start.failure;
  if (!said.is_object())
    return fmt::format(
        "the last, on host {}, left no word: it was killed from outside (no memory left, a lost node, a time "
        "limit)",
        start.host);
  const auto number = [&](const char* key) { return said.contains(key) ? said[key].dump() : "?"; };
  const auto text = [&](const char* key) {
    return said.contains(key) && said[key].is_string() ? said[key].get<std::string>() : "?";
  };
  return fmt::format("the last ended with exit code {} on rank {} (host {}), {}, step {}: {}",
                     number("exit_code"), number("rank"), text("host"), text("phase"), number("step"),
                     text("reason"));
}

}  // namespace

int64_t fruitless_starts(const std::vector<NotedStart>& starts, int64_t step, const std::string& run) {
  int64_t count = 0;
  for (auto it = starts.rbegin(); it != starts.rend() && it->step == step && it->run == run; ++it) ++count;
  return count;
}

RestartNotes::RestartNotes(const fs::path& output)
    : path_(output / "restarts.json"), starts_(read_starts(path_)) {
  const fs::path failure = output / "failure.json";
  if (starts_.empty() || !starts_.back().failure.is_null() || !fs::exists(failure)) return;
  try {
    const Json said = read_json(failure);
    constexpr int own = static_cast<int>(ExitCode::no_progress);
    if (said.value("exit_code", 0) == own) return;  // of a start that was refused
    starts_.back().failure = said;
    write();
  } catch (const std::exception& error) {
    log::warn("{}: cannot be read: {}", failure.string(), error.what());
  }
}

void RestartNotes::begin(const NotedStart& start, int64_t most) {
  const int64_t fruitless = fruitless_starts(starts_, start.step, start.run);
  check(most == 0 || fruitless < most, ExitCode::no_progress,
        "{} starts in a row went on from step {} and ended before the next checkpoint; {}. Another start "
        "would most "
        "likely end so too. Change what is wrong there; after a change of the configuration or of the number "
        "of "
        "ranks, and without {}, starts are counted anew (train.max_fruitless_starts)",
        fruitless, start.step, last_words(starts_.empty() ? start : starts_.back()), path_.string());
  if (fruitless == 0) starts_.clear();
  starts_.push_back(start);
  if (starts_.size() > most_kept) starts_.erase(starts_.begin());
  has_begun_ = true;
  write();
}

void RestartNotes::end() {
  if (!std::exchange(has_begun_, false)) return;
  starts_.clear();
  std::error_code error;
  fs::remove(path_, error);
}

void RestartNotes::withdraw() {
  if (!std::exchange(has_begun_, false)) return;
  starts_.pop_back();
  write();
}

void RestartNotes::write() const {
  Json json = {{"starts", Json::array()}};
  for (const NotedStart& start : starts_) json["starts"].push_back(to_json(start));
  write_text(path_, json.dump(2) + "\n");
}

}  // namespace ptrain
