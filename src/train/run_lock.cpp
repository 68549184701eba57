#include "src/train/run_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"
#include "kernels/base/log.h"
#include "src/io/file.h"

namespace ptrain {
namespace {

/// What an owner writes: "host H, pid P, job J", and behind it how often it has said that it lives.
struct Note {
  std::string owner;
  std::string beat;

  bool operator==(const Note&) const = default;
};

std::string owner_text(const std::string& job) {
  return fmt::format("host {}, pid {}, job {}", host_name(), ::getpid(), job.empty() ? "none" : job);
}

Note note_in(std::string_view text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return {.owner = std::string(text), .beat = {}};
  return {.owner = std::string(text.substr(0, end)), .beat = std::string(text.substr(end + 1))};
}

/// By a file of its own: on NFS opening is what brings another host's writes.
Note read_note(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  char text[600] = {};
  const ssize_t count = ::pread(fd, text, sizeof text - 1, 0);
  ::close(fd);
  return note_in({text, static_cast<size_t>(std::max<ssize_t>(count, 0))});
}

/// "host H, pid P, …": whether H is this host, and P.
std::optional<pid_t> own_hosts_pid(const Note& note) {
  const std::string here = fmt::format("host {}, pid ", host_name());
  if (!note.owner.starts_with(here)) return std::nullopt;
  return static_cast<pid_t>(std::strtol(note.owner.c_str() + here.size(), nullptr, 10));
}

[[noreturn]] void refuse(const std::filesystem::path& output, const Note& note) {
  fail(ExitCode::usage,
       "output: {} belongs to a run that is still going ({}); wait for it, stop it, or give another output",
       output.string(), note.owner.empty() ? "its owner has not said who it is" : note.owner);
}

enum class Kernel { has_it, is_refused, knows_no_locks };

Kernel lock_of_kernel(int fd, const std::string& path) {
  struct flock whole_file {};
  whole_file.l_type = F_WRLCK;
  whole_file.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &whole_file) == 0) return Kernel::has_it;
  if (errno == EAGAIN || errno == EACCES) return Kernel::is_refused;
  log::warn("{}: this file system has no locks ({}); that the output is free is told by signs of life alone",
            path, std::strerror(errno));
  return Kernel::knows_no_locks;
}

}  // namespace

/// The file, its lock, and the thread that says we live.
class RunLock::Held {
 public:
  Held(const std::filesystem::path& output, const std::string& job, const LockPatience& patience)
      : path_(output / ".lock"), owner_(owner_text(job)), patience_(patience) {
    fd_ = open_output(path_, O_RDWR);
    try {
      take(output);
    } catch (...) {
      ::close(fd_);
      throw;
    }
    thread_ = std::thread([this] { beat(); });
  }
  ~Held() {
    {
      const std::lock_guard lock(mutex_);
      is_over_ = true;
    }
    over_.notify_all();
    thread_.join();
    // Signed off: who comes next need not wait. If that fails, it waits.
    if (::ftruncate(fd_, 0) != 0) log::warn("{}: cannot be emptied: {}", path_, std::strerror(errno));
    ::close(fd_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  void take(const std::filesystem::path& output) {
    Kernel kernel = lock_of_kernel(fd_, path_);
    constexpr std::chrono::milliseconds pause(50);
    for (auto waited = pause;
         kernel == Kernel::is_refused && !own_hosts_pid(read_note(path_)) && waited <= patience_.ending;
         waited += pause) {
      std::this_thread::sleep_for(pause);
      kernel = lock_of_kernel(fd_, path_);
    }
    const Note note = read_note(path_);
    if (kernel == Kernel::is_refused) refuse(output, note);
    const std::optional<pid_t> pid = own_hosts_pid(note);
    if (pid && kernel == Kernel::knows_no_locks && (::kill(*pid, 0) == 0 || errno == EPERM))
      refuse(output, note);
    if (!note.owner.empty() && !pid) wait_for_life(output, note);
    write(0);
    if (kernel == Kernel::has_it) return;
    // Two may have come here at once; the one that wrote last has it.
    std::this_thread::sleep_for(patience_.beat);
    if (const Note now = read_note(path_); now.owner != owner_) refuse(output, now);
  }

  /// An owner on another host that has not signed off: dead, or its lock is not seen here.
  void wait_for_life(const std::filesystem::path& output, const Note& last) const {
    const auto longest = patience_.beat * patience_.beats;
    log::info(
        "output: {} was last held by {}, which has not signed off; looking for {:.0f} s whether it lives",
        output.string(), last.owner, std::chrono::duration<double>(longest).count());
    for (int i = 0; i < patience_.beats; ++i) {
      std::this_thread::sleep_for(patience_.beat);
      const Note now = read_note(path_);
      if (now.owner.empty()) return;
      if (now != last) refuse(output, now);
    }
    log::info("output: no sign of life: taken over");
  }

  void write(int64_t beats) {
    // Of one length always, so that a reader never sees half of another.
    const std::string text = fmt::format("{}\n{:012}\n", owner_, beats);
    const bool is_written = ::pwrite(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
    check(is_written || beats > 0, ExitCode::resources, "output: {} cannot be written: {}", path_,
          std::strerror(errno));
    if (beats == 0 && ::ftruncate(fd_, static_cast<off_t>(text.size())) != 0)
      fail(ExitCode::resources, "output: {} cannot be written: {}", path_, std::strerror(errno));
    ::fdatasync(fd_);
  }

  void beat() {
    std::unique_lock lock(mutex_);
    for (int64_t beats = 1; !over_.wait_for(lock, patience_.beat, [this] { return is_over_; }); ++beats) {
      lock.unlock();  // a file system may take its time
      write(beats);
      lock.lock();
    }
  }

  std::string path_, owner_;
  LockPatience patience_;
  int fd_ = -1;
  std::mutex mutex_;
  std::condition_variable over_;
  bool is_over_ = false;  // guarded by mutex_
  std::thread thread_;
};

RunLock::RunLock() = default;
RunLock::RunLock(const std::filesystem::path& output, const std::string& job, const LockPatience& patience)
    : held_(std::make_unique<Held>(output, job, patience)) {}
RunLock::RunLock(RunLock&& other) noexcept = default;
RunLock& RunLock::operator=(RunLock&& other) noexcept = default;
RunLock::~RunLock() = default;

}  // namespace ptrain
