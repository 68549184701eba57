#include "parallel/comm/network_libraries.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// A folder as the machine names it, "/opt/amazon/efa/lib".
struct LibraryFolder {
  std::string path;
  bool is_searched = false;  // by the loader
};

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();
  return text.str();
}

fs::path under(const fs::path& root, std::string_view path) {
  return root / fs::path(path).relative_path();
}

/// In the loader's order: LD_LIBRARY_PATH, /etc/ld.so.conf.d, the system's own; then where the installers put
/// things that the loader may not see.
std::vector<LibraryFolder> library_folders(const fs::path& root, std::string_view search_path) {
  std::vector<LibraryFolder> folders;
  std::istringstream searched{std::string(search_path)};
  for (std::string path; std::getline(searched, path, ':');) {
    if (!path.empty()) folders.push_back({path, true});
  }
  std::vector<fs::path> lists;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root / "etc/ld.so.conf.d", error)) {
    if (entry.path().extension() == ".conf") lists.push_back(entry.path());
  }
  std::ranges::sort(lists);
  for (const fs::path& list : lists) {
    std::istringstream lines(text_of(list));
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with('/'))
        folders.push_back({line.substr(0, line.find_last_not_of(" \t\r") + 1), true});
    }
  }
  for (const char* path :
       {"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"})
    folders.push_back({path, true});
  for (const char* path :
       {"/opt/amazon/ofi-nccl/lib", "/opt/amazon/ofi-nccl/lib64", "/opt/amazon/ofi-nccl/lib/x86_64-linux-gnu",
        "/opt/amazon/ofi-nccl/lib/aarch64-linux-gnu", "/opt/aws-ofi-nccl/lib",
        "/opt/aws-ofi-nccl/install/lib", "/opt/amazon/efa/lib", "/opt/amazon/efa/lib64"}) {
    folders.push_back({path, false});
  }
  return folders;
}

/// "libfabric1-aws_1.16.0~amzn3.0_amd64", "libfabric-aws-1.17.0-1.el8.x86_64": the version of the first
/// package in the EFA installer's list whose name begins like that.
Version installed_version(const fs::path& root, std::initializer_list<std::string_view> names) {
  std::istringstream words(text_of(root / "opt/amazon/efa_installed_packages"));
  for (std::string word; words >> word;) {
    for (const std::string_view name : names) {
      const bool is_it = word.starts_with(name) && word.size() > name.size() + 1 &&
                         (word[name.size()] == '_' || word[name.size()] == '-');
      if (!is_it) continue;
      const Version version = parse_version(std::string_view(word).substr(name.size() + 1));
      if (version.is_known()) return version;
    }
  }
  return {};
}

/// "Version: 1.18.1amzn3.0"
Version pkg_config_version(const fs::path& file) {
  constexpr std::string_view mark = "Version:";
  std::istringstream lines(text_of(file));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(mark)) continue;
    const size_t at = line.find_first_not_of(" \t", mark.size());
    return at == std::string::npos ? Version{} : parse_version(std::string_view(line).substr(at));
  }
  return {};
}

void find_libfabric(const fs::path& root, const std::vector<LibraryFolder>& folders, NetworkReport& report) {
  for (const LibraryFolder& folder : folders) {
    const fs::path place = under(root, folder.path);
    if (!fs::exists(place / "libfabric.so.1")) continue;
    report.has_libfabric = true;
    report.libfabric = pkg_config_version(place / "pkgconfig/libfabric.pc");
    const bool is_amazons = folder.path.starts_with("/opt/amazon/efa/");
    if (!report.libfabric.is_known() && is_amazons)
      report.libfabric =
          installed_version(root, {"libfabric1-aws", "libfabric-aws", "libfabric1", "libfabric"});
    return;
  }
}

/// What the file says of itself when it starts: "NET/OFI Initializing aws-ofi-nccl 1.14.0". Other plugins go
/// by the same file name.
struct PluginFile {
  bool is_ofi = false;
  Version version;
};
PluginFile read_plugin(const fs::path& file) {
  constexpr std::string_view mark = "aws-ofi-nccl";
  const std::string bytes = text_of(file);
  PluginFile plugin;
  for (size_t at = bytes.find(mark); at != std::string::npos; at = bytes.find(mark, at + 1)) {
    plugin.is_ofi = true;
    const size_t number = at + mark.size() + 1;
    if (number >= bytes.size() || bytes[number - 1] != ' ') continue;
    plugin.version = parse_version(std::string_view(bytes).substr(number));
    if (plugin.version.is_known()) break;
  }
  return plugin;
}

bool find_plugin_in(const fs::path& root, const LibraryFolder& folder, NetworkReport& report) {
  const fs::path place = under(root, folder.path);
  // NCCL looks for the first name by itself.
  for (const char* name : {"libnccl-net.so", "libnccl-net-ofi.so"}) {
    const fs::path file = place / name;
    if (!fs::is_regular_file(file)) continue;
    const PluginFile plugin = read_plugin(file);
    const bool is_ofi = plugin.is_ofi || std::string_view(name).find("ofi") != std::string_view::npos;
    if (!is_ofi) continue;
    report.plugin_path = folder.path + "/" + name;
    report.plugin = plugin.version;
    const bool is_found_by_name = std::string_view(name) == "libnccl-net.so";
    report.is_plugin_on_search_path = folder.is_searched && is_found_by_name;
    if (!report.plugin.is_known() && folder.path.starts_with("/opt/amazon/"))
      report.plugin = installed_version(root, {"libnccl-ofi", "aws-ofi-nccl"});
    for (const char* tuner : {"libnccl-ofi-tuner.so", "libnccl-tuner-ofi.so"}) {
      if (report.tuner_path.empty() && fs::exists(place / tuner))
        report.tuner_path = folder.path + "/" + tuner;
    }
    return true;
  }
  return false;
}

}  // namespace

void find_network_libraries(const fs::path& root, std::string_view search_path, NetworkReport& report) {
  const std::vector<LibraryFolder> folders = library_folders(root, search_path);
  find_libfabric(root, folders, report);
  for (const LibraryFolder& folder : folders) {
    if (find_plugin_in(root, folder, report)) return;
  }
}

}  // namespace ptrain
