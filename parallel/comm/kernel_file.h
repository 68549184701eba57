// Files in /sys and /proc in which the kernel answers with a line.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

namespace ptrain {

/// Empty where the file cannot be read: some of the kernel's answer with an error.
inline std::string first_line(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.pop_back();
  return line;
}

}  // namespace ptrain
