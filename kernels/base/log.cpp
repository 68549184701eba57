#include "kernels/base/log.h"

#include <fcntl.h>
#include <sys/time.h>

#include <cstdio>
#include <ctime>
#include <mutex>
#include <string>

#include "kernels/base/secrets.h"

namespace ptrain::log {
namespace {

// The one piece of process-wide state: who speaks, from which level up, and where else it is written down.
// Set before threads exist; lines themselves may come from any thread.
struct Voice {
  Level level = Level::info;
  int rank = 0;
  int world = 1;
  std::FILE* file = nullptr;
  bool has_live_line = false;
} voice;
std::mutex one_at_a_time;

std::string_view name_of(Level level) {
  switch (level) {
    case Level::debug:
      return "debug: ";
    case Level::info:
      return "";
    case Level::warning:
      return "warning: ";
    case Level::error:
      return "error: ";
  }
  return "";
}

/// "2026-03-01 12:00:00.123 ", local time.
std::string stamp() {
  timeval now{};
  gettimeofday(&now, nullptr);
  tm local{};
  localtime_r(&now.tv_sec, &local);
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
  return fmt::format("{}.{:03} ", text, now.tv_usec / 1000);
}

}  // namespace

void configure(Level level, int rank, int world) {
  voice.level = level, voice.rank = rank, voice.world = world;
}

bool keep_in(const std::string& path) {
  if (voice.file != nullptr) std::fclose(voice.file);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
  voice.file = fd < 0 ? nullptr : ::fdopen(fd, "a");
  if (voice.file != nullptr) std::setvbuf(voice.file, nullptr, _IOLBF, 1 << 12);
  return voice.file != nullptr;
}

void set_live_line(bool is_there) {
  const std::lock_guard lock(one_at_a_time);
  voice.has_live_line = is_there;
}

void write(Level level, std::string_view text) {
  if (level < voice.level) return;
  const std::string shown = without_secrets(text);
  const std::lock_guard lock(one_at_a_time);
  if (voice.file != nullptr) {
    const std::string kept = fmt::format("{}{}{}\n", stamp(), name_of(level), shown);
    std::fwrite(kept.data(), 1, kept.size(), voice.file);
  }
  if (voice.rank != 0 && level < Level::warning) return;
  std::string line = voice.has_live_line ? "\r\033[K" : "";
  line += "ptrain: ";
  if (level >= Level::warning && voice.world > 1) line += fmt::format("rank {}: ", voice.rank);
  line += fmt::format("{}{}\n", name_of(level), shown);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace ptrain::log
