// A program that behaves like s5cmd, aws or rclone on a directory instead of S3, and fails, hangs or sends
// half when told to. Not for what the real ones say: s3_server_test.cpp runs those.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/fixtures.h"

namespace ptrain {

/// bin/s5cmd (or another name) on a search path of its own; s3://b/x lies in s3/b/x below root(). Each copy
/// up takes the next line of `plan` (set_plan): ok, fail, denied, leak (says a secret and fails), hang, half; ok when there is none.
class FakeS3 {
 public:
  explicit FakeS3(const std::string& name = "s5cmd") {
    std::filesystem::create_directories(root() / "bin");
    std::filesystem::create_directories(root() / "s3");
    const std::filesystem::path program = root() / "bin" / name;
    std::filesystem::copy_file(std::filesystem::path(PTRAIN_FIXTURES) / "../support/fake_s3.sh", program);
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    set_plan({});
  }

  std::filesystem::path root() const { return directory_.path(); }
  std::string search_path() const { return (root() / "bin").string(); }
  std::filesystem::path object(const std::string& name) const { return root() / "s3" / name; }

  void set_plan(const std::vector<std::string>& lines) const {
    std::ofstream plan(root() / "plan");
    for (const std::string& line : lines) plan << line << "\n";
  }

  /// Whether lines of it are left.
  bool has_plan() const { return std::ifstream(root() / "plan").peek() != std::ifstream::traits_type::eof(); }

  /// What was done, one line each: "up s3://b/x/config.json", "down …", "rm …", "ls …", "pipe …".
  std::vector<std::string> calls() const {
    std::vector<std::string> lines;
    std::ifstream file(root() / "calls");
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }
  void forget_calls() const { std::filesystem::remove(root() / "calls"); }

  /// How many files were not whole at the moment when a MANIFEST.json came from beside them.
  int torn() const {
    std::ifstream file(root() / "torn");
    int lines = 0;
    for (std::string line; std::getline(file, line);) ++lines;
    return lines;
  }

 private:
  TemporaryDirectory directory_;
};

}  // namespace ptrain
