#include "src/convert/publish.h"

#include <algorithm>
#include <vector>

#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/hf_dir.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

bool is_numbered_weights(const std::string& name) {
  return name.starts_with("model-") && name.ends_with(".safetensors");
}

/// The files of an older model: its small files, its index, its weights.
std::vector<std::string> older_files(const fs::path& directory) {
  std::vector<std::string> names = {"config.json", "model.safetensors.index.json", "model.safetensors"};
  for (const std::string& name : small_hf_files()) names.push_back(name);
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    if (is_numbered_weights(entry.path().filename().string()))
      names.push_back(entry.path().filename().string());
  }
  return names;
}

}  // namespace

fs::path work_directory(const fs::path& directory) {
  return directory / ".making";
}

void publish_model(const fs::path& directory) {
  const fs::path work = work_directory(directory);
  std::error_code error;
  for (const std::string& name : older_files(directory)) {
    fs::remove(directory / name, error);
    check(!error, ExitCode::resources, "{}: cannot be removed: {}", (directory / name).string(),
          error.message());
  }
  std::vector<fs::path> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(work))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end(), [](const fs::path& a, const fs::path& b) {
    return std::pair(a == "config.json", a) < std::pair(b == "config.json", b);
  });
  for (const fs::path& name : names) rename_path(work / name, directory / name);
  fs::remove(work, error);
  sync_directory(directory);
}

}  // namespace ptrain
