#include "launch/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "kernels/base/log.h"

namespace ptrain {
namespace {

int columns_of_stdout() {
  winsize size{};
  const bool is_known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return is_known ? size.ws_col : 80;
}

}  // namespace

Terminal::Terminal(const char* term)
    : is_live_(isatty(STDOUT_FILENO) != 0 && term != nullptr && std::string_view(term) != "dumb") {}

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
  fmt::print("{}\n", line);
  std::fflush(stdout);
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
