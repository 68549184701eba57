#include "launch/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "kernels/base/log.h"

namespace ptrain {
namespace {

int columns_of_stdout() {
  winsize size{};
  const bool is_known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : 80;
}

/// mpirun gives its ranks a terminal of its own making, whatever its own output is: that of the parent
/// counts.
bool is_parent_on_terminal() {
  const std::string path = fmt::format("/proc/{}/fd/1", getppid());
  const int fd = open(path.c_str(), O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return false;
  const bool is_terminal = isatty(fd) != 0;
  close(fd);
  return is_terminal;
}

bool is_live(const char* term, Terminal::StartedBy started_by) {
  if (term == nullptr || std::string_view(term) == "dumb" || isatty(STDOUT_FILENO) == 0) return false;
  return started_by == Terminal::StartedBy::hand || is_parent_on_terminal();
}

}  // namespace

Terminal::Terminal(const char* term, StartedBy started_by) : is_live_(is_live(term, started_by)) {}

Terminal::~Terminal() {
  if (!has_line_) return;
  std::fputs("\n", stdout);
  std::fflush(stdout);
  log::set_live_line(false);
}

void Terminal::clear() {
  if (has_line_) std::fputs("\r\033[K", stdout);
  has_line_ = false;
}

void Terminal::say(std::string_view line) {
  clear();
  std::fprintf(stdout, "%.*s\n", static_cast<int>(line.size()), line.data());
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  std::clearerr(stdout);  // the steps are on disk too: no reason to end
  if (!is_mute_) log::warn("stdout cannot be written: steps are shown in <output>/metrics.jsonl alone");
  is_mute_ = true;
}

std::function<void(const StepResult&, const RunProgress&)> Terminal::step_shower() {
  if (!is_live_) return {};
  return [this](const StepResult& result, const RunProgress& progress) {
    clear();
    fmt::print("{}", live_line(result, progress, columns_of_stdout() - 1));
    std::fflush(stdout);
    has_line_ = true;
    log::set_live_line(isatty(STDERR_FILENO) != 0);
  };
}

}  // namespace ptrain
