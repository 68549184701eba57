// What strangers' bytes go through, each as a function of bytes: driven by libFuzzer (fuzz_main.cpp) and by
// deterministic mutations in every test run (fuzz_test.cpp). A target may throw Error; anything else it does,
// a crash, another exception, a huge allocation, is a defect.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ptrain::fuzz {

struct Target {
  std::string_view name;
  void (*run)(const std::string& bytes);
  std::vector<std::string> (*seeds)();  // whole and good, small
};

std::span<const Target> targets();
const Target& target(std::string_view name);

}  // namespace ptrain::fuzz
