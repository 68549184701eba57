// The project's own sources as the house tests see them: paths, lines and includes.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain::house {

struct Include {
  std::string name;        // between the quotes or the angle brackets
  bool is_angled = false;  // <name>
  int line = 0;
};

struct SourceFile {
  std::string path;  // from the root of the project
  std::vector<std::string> lines;
  std::vector<Include> includes;
};

inline bool is_header(std::string_view path) {
  return path.ends_with(".h") || path.ends_with(".cuh");
}

/// An #include of that line, or an empty name.
inline Include include_of(std::string_view line) {
  const size_t start = line.find_first_not_of(" \t");
  if (start == std::string_view::npos || line[start] != '#') return {};
  line.remove_prefix(start + 1);
  const size_t word = line.find_first_not_of(" \t");
  if (word == std::string_view::npos || !line.substr(word).starts_with("include")) return {};
  line.remove_prefix(word + std::string_view("include").size());
  const size_t open = line.find_first_of("<\"");
  if (open == std::string_view::npos) return {};
  const bool is_angled = line[open] == '<';
  const size_t close = line.find(is_angled ? '>' : '"', open + 1);
  if (close == std::string_view::npos) return {};
  return {std::string(line.substr(open + 1, close - open - 1)), is_angled, 0};
}

inline SourceFile read_source(const std::filesystem::path& root, const std::string& path) {
  SourceFile file;
  file.path = path;
  std::ifstream stream(root / path);
  for (std::string line; std::getline(stream, line);) {
    file.lines.push_back(line);
    Include include = include_of(line);
    include.line = static_cast<int>(file.lines.size());
    if (!include.name.empty()) file.includes.push_back(std::move(include));
  }
  return file;
}

/// All C++ and CUDA sources below the four floors (and, if asked for, other folders), sorted by path.
inline std::vector<SourceFile> read_tree(const std::filesystem::path& root,
                                         const std::vector<std::string>& folders = {"kernels", "parallel",
                                                                                    "src", "launch"}) {
  std::vector<SourceFile> files;
  for (const std::string& folder : folders) {
    if (!std::filesystem::exists(root / folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const std::string path = entry.path().lexically_relative(root).string();
      const bool is_source = path.ends_with(".cpp") || path.ends_with(".cu") || is_header(path);
      if (entry.is_regular_file() && is_source) files.push_back(read_source(root, path));
    }
  }
  std::ranges::sort(files, {}, &SourceFile::path);
  return files;
}

}  // namespace ptrain::house
