// A folder of files made up for one test, gone when the test ends.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace ptrain {

class MadeUpTree {
 public:
  MadeUpTree()
      : root_(std::filesystem::temp_directory_path() / ("ptrain_tree_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  ~MadeUpTree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  MadeUpTree(const MadeUpTree&) = delete;
  MadeUpTree& operator=(const MadeUpTree&) = delete;

  const std::filesystem::path& root() const { return root_; }
  void file(const std::string& path, std::string_view text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << text;
  }
  void folder(const std::string& path) const { std::filesystem::create_directories(root_ / path); }
  /// A link at `path` to another path of the tree, which is made as a folder where it is missing.
  void link(const std::string& path, const std::string& target) const {
    folder(target);
    std::filesystem::create_directories((root_ / path).parent_path());
    std::filesystem::create_symlink(root_ / target, root_ / path);
  }

 private:
  std::filesystem::path root_;
};

}  // namespace ptrain
