#include "src/train/store.h"

#include <fstream>

#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

/// The rows to keep: whole lines of steps up to last_step.
std::string kept_rows(const std::string& text, int64_t last_step) {
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // torn
    const std::string_view line(text.data() + begin, end - begin);
    const Json row = Json::parse(line, nullptr, false);
    if (row.is_object() && row.contains("step") && row["step"].is_number_integer() &&
        row["step"] <= last_step) {
      kept.append(line).push_back('\n');
    }
    begin = end + 1;
  }
  return kept;
}

}  // namespace

std::filesystem::path making_of(const std::filesystem::path& directory) {
  return directory.parent_path() / (".tmp-" + directory.filename().string());
}

void replace_by_made(const std::filesystem::path& directory) {
  const std::filesystem::path old = directory.parent_path() / (".trash-" + directory.filename().string());
  std::filesystem::remove_all(old);
  if (std::filesystem::exists(directory)) std::filesystem::rename(directory, old);
  std::filesystem::rename(making_of(directory), directory);
  std::filesystem::remove_all(old);
}

bool has_evaluation(const std::filesystem::path& metrics, int64_t step) {
  std::ifstream file(metrics);
  for (std::string line; std::getline(file, line);) {
    const Json row = Json::parse(line, nullptr, false);
    if (row.is_object() && row.contains("eval_loss") && row.contains("step") && row["step"] == step)
      return true;
  }
  return false;
}

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t last_step) {
  if (std::filesystem::exists(path)) {
    const std::string text = read_text(path, int64_t{4} << 30);
    const std::string kept = kept_rows(text, last_step);
    if (kept != text) write_text(path, kept);
  }
  file_ = AppendedFile(path, AppendedFile::Start::go_on);
}

void MetricsFile::append(const Json& row) {
  file_.append(row.dump() + '\n');
}

}  // namespace ptrain
