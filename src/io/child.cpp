#include "src/io/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/progress.h"
#include "kernels/base/secrets.h"
#include "src/io/file.h"

namespace ptrain {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t input_piece_bytes = 256 << 10;
constexpr size_t kept_err_bytes = 8 << 10;
constexpr std::chrono::milliseconds pulse{20};  // how often stop, time and pace are looked at
constexpr std::chrono::seconds patience{2};     // between asking a child to go and killing it
constexpr int lower_priority = 10;

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { close(); }

  int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

struct Ends {
  Descriptor ours, its;
};

/// Both ends close by themselves when a program starts; the child's copies of its own do not.
Ends make_pipe() {
  int fds[2];
  check(::pipe2(fds, O_CLOEXEC) == 0, ExitCode::resources, "no pipe to a program can be made: {}",
        std::strerror(errno));
  return {Descriptor(fds[0]), Descriptor(fds[1])};
}

/// For its stdin. A socket and not a pipe: writing to a program that is gone is then an error and no SIGPIPE.
Ends make_input() {
  int fds[2];
  check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, ExitCode::resources,
        "no socket to a program can be made: {}", std::strerror(errno));
  return {Descriptor(fds[0]), Descriptor(fds[1])};
}

/// What the child needs between vfork and execve: all of it made before, since it may not allocate.
struct Seat {
  char* const* words;
  std::array<int, 3> fds;
  pid_t parent;
  int last_fd;
};

/// Runs in the child, in our memory, until execve: only calls that touch nothing.
[[noreturn]] void become(const Seat& seat) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != seat.parent) ::_exit(127);  // we ended before the line above
  ::setpgid(0, 0);
  ::setpriority(PRIO_PROCESS, 0, lower_priority);
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int fd = 0; fd < 3; ++fd) {
    if (::dup2(seat.fds[static_cast<size_t>(fd)], fd) < 0) ::_exit(127);
  }
  // What a library of ours opened without O_CLOEXEC is not for the child either.
  if (::syscall(SYS_close_range, 3u, ~0u, 0u) != 0) {
    for (int fd = 3; fd <= seat.last_fd; ++fd) ::close(fd);
  }
  ::execv(seat.words[0], seat.words);
  ::_exit(127);
}

/// Never inlined: the frame that vfork is called in must not be left before the child has gone its own way.
[[gnu::noinline]] pid_t start(const Seat& seat) {
  // No handler of ours may run in the child while it uses our memory.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t child = ::vfork();
  if (child == 0) become(seat);
  const int reason = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  check(child > 0, ExitCode::resources, "{} cannot be started: {}", seat.words[0], std::strerror(reason));
  return child;
}

/// Descriptors 0 to 2 of ours must not be what the child's are copied from: dup2 would close one for another.
Descriptor above_standard(Descriptor descriptor) {
  if (descriptor.get() > 2) return descriptor;
  Descriptor higher(::fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 3));
  check(higher.get() >= 0, ExitCode::resources, "no file can be given to a program: {}",
        std::strerror(errno));
  return higher;
}

/// One program from its start to its end.
class Child {
 public:
  Child(const ChildRequest& request, std::stop_token stop) : request_(request), stop_(std::move(stop)) {}
  ~Child() {
    if (pid_ > 0 && !is_reaped_) kill_it();
  }

  ChildResult run();

 private:
  void launch();
  void talk();
  void judge();
  void feed();
  void hear(Descriptor& from, std::string& text, size_t most);
  bool has_ended(int options);
  void kill_it();
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

  const ChildRequest& request_;
  std::stop_token stop_;
  ChildResult result_;
  Clock::time_point begin_ = Clock::now();
  std::optional<Clock::time_point> told_to_go_;
  pid_t pid_ = 0;
  bool is_reaped_ = false;
  Descriptor input_, out_, err_;
  File file_;
  std::vector<char> piece_;
  int64_t fed_ = 0;       // bytes of the file that the child has
  int64_t piece_at_ = 0;  // where in the file the piece begins
};

void Child::launch() {
  if (!request_.input.empty()) file_ = File::open(request_.input);
  Ends in, out = make_pipe(), err = make_pipe();
  if (file_) {
    in = make_input();
  } else {
    in.its = Descriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  const Descriptor its_in = above_standard(std::move(in.its));
  const Descriptor its_out = above_standard(std::move(out.its));
  const Descriptor its_err = above_standard(std::move(err.its));
  std::vector<char*> words;
  for (const std::string& word : request_.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  pid_ = start({words.data(),
                {its_in.get(), its_out.get(), its_err.get()},
                ::getpid(),
                static_cast<int>(std::min<rlim_t>(files.rlim_cur, 65536))});
  input_ = std::move(in.ours), out_ = std::move(out.ours), err_ = std::move(err.ours);
}

/// Tells the child to go where its time is over or nobody wants it any more; kills it where it stays.
void Child::judge() {
  if (told_to_go_) {
    if (Clock::now() - *told_to_go_ > patience) kill_it();
    return;
  }
  using End = ChildResult::End;
  if (stop_.stop_requested()) {
    result_.end = End::stopped;
  } else if (seconds() > request_.limit_s) {
    result_.end = End::out_of_time;
  } else if (std::ssize(result_.out) > request_.output_bytes) {
    result_.end = End::too_much_output;
  } else {
    return;
  }
  told_to_go_ = Clock::now();
  ::kill(-pid_, SIGTERM);
}

/// A piece more of the file, when the pace allows it.
void Child::feed() {
  if (input_.get() < 0) return;
  if (fed_ == file_.bytes()) return input_.close();
  if (request_.input_bytes_per_s > 0 && static_cast<double>(fed_) > seconds() * request_.input_bytes_per_s)
    return;
  if (fed_ == piece_at_ + std::ssize(piece_)) {
    piece_at_ = fed_;
    piece_.resize(static_cast<size_t>(std::min(input_piece_bytes, file_.bytes() - fed_)));
    file_.read_at(fed_, piece_.data(), std::ssize(piece_));
  }
  const int64_t skip = fed_ - piece_at_;
  const ssize_t n = ::send(input_.get(), piece_.data() + skip, piece_.size() - static_cast<size_t>(skip),
                           MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n > 0) fed_ += n;
  if (n < 0 && errno != EAGAIN && errno != EINTR) input_.close();  // it wants no more; its exit code says why
}

void Child::hear(Descriptor& from, std::string& text, size_t most) {
  char bytes[16 << 10];
  const ssize_t n = ::read(from.get(), bytes, sizeof bytes);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) return from.close();
  text.append(bytes, static_cast<size_t>(n));
  if (text.size() > 2 * most) text.erase(0, text.size() - most);  // the end is what tells
}

void Child::talk() {
  std::array<pollfd, 3> fds{{{out_.get(), POLLIN, 0}, {err_.get(), POLLIN, 0}, {input_.get(), POLLOUT, 0}}};
  const bool is_ahead =
      request_.input_bytes_per_s > 0 && static_cast<double>(fed_) > seconds() * request_.input_bytes_per_s;
  if (is_ahead) fds[2].fd = -1;  // negative ones are passed over
  ::poll(fds.data(), fds.size(), static_cast<int>(pulse.count()));
  const auto is_ready = [&](size_t i) { return fds[i].fd >= 0 && fds[i].revents != 0; };
  if (is_ready(0)) hear(out_, result_.out, std::string::npos / 2);
  if (is_ready(1)) hear(err_, result_.err, kept_err_bytes);
  if (is_ready(2)) feed();
}

/// Takes note of its end, and ends what it left running, while its number still is its own.
bool Child::has_ended(int options) {
  if (is_reaped_) return true;
  siginfo_t info{};
  const int looked = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT | options);
  if (looked < 0 && errno == EINTR) return false;
  if (looked == 0 && info.si_pid == 0) return false;
  ::kill(-pid_, SIGKILL);
  int status = 0;
  const bool is_known = ::waitpid(pid_, &status, 0) == pid_;  // else another reaped it
  is_reaped_ = true;
  if (is_known) result_.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

void Child::kill_it() {
  ::kill(-pid_, SIGKILL);
  while (!has_ended(0)) {
  }
}

ChildResult Child::run() {
  launch();
  while (!has_ended(WNOHANG)) {
    progress::tick();  // its time is limited: while it lasts, who waits for it does not hang
    judge();
    talk();
  }
  // What it said last is still in the pipes.
  for (const auto until = Clock::now() + pulse * 5; Clock::now() < until;) {
    input_.close();
    if (out_.get() < 0 && err_.get() < 0) break;
    talk();
  }
  if (result_.err.size() > kept_err_bytes) result_.err.erase(0, result_.err.size() - kept_err_bytes);
  result_.err = without_secrets(result_.err);
  result_.seconds = seconds();
  return std::move(result_);
}

}  // namespace

ChildResult run_child(const ChildRequest& request, std::stop_token stop) {
  check(!request.words.empty(), "a program without a name");
  return Child(request, std::move(stop)).run();
}

std::optional<std::string> find_program(std::string_view name, std::string_view search_path) {
  while (!search_path.empty()) {
    const size_t end = std::min(search_path.find(':'), search_path.size());
    const std::string_view directory = search_path.substr(0, end);
    search_path.remove_prefix(std::min(end + 1, search_path.size()));
    if (directory.empty() || directory.front() != '/') continue;  // never a program of the working directory
    const std::filesystem::path path = std::filesystem::path(directory) / name;
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0)
      return path.string();
  }
  return std::nullopt;
}

}  // namespace ptrain
