#include "src/io/checkpoint.h"

#include <algorithm>
#include <charconv>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view name_prefix = "step-";
constexpr std::string_view making_prefix = ".tmp-";
constexpr std::string_view trash_prefix = ".trash-";

}  // namespace

std::string checkpoint_name(int64_t step) {
  return fmt::format("{}{:08}", name_prefix, step);
}

fs::path making_of_checkpoint(const fs::path& root, int64_t step) {
  return root / (std::string(making_prefix) + checkpoint_name(step));
}

fs::path trash_of_checkpoint(const fs::path& root, int64_t step) {
  return root / (std::string(trash_prefix) + checkpoint_name(step));
}

std::vector<std::pair<int64_t, fs::path>> list_steps(const fs::path& root) {
  std::vector<std::pair<int64_t, fs::path>> steps;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(name_prefix)) continue;
    const auto [rest, bad] =
        std::from_chars(name.data() + name_prefix.size(), name.data() + name.size(), step);
    if (bad == std::errc() && rest == name.data() + name.size()) steps.emplace_back(step, it->path());
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

std::vector<fs::path> list_leftovers(const fs::path& root) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(making_prefix) || name.starts_with(trash_prefix)) leftovers.push_back(it->path());
  }
  return leftovers;
}

}  // namespace ptrain
