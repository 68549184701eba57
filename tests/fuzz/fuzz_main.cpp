// One target for libFuzzer: PTRAIN_FUZZ_TARGET names it. A program of this file is asked for its seeds, one
// file each, by `--seeds DIRECTORY`.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "kernels/base/error.h"
#include "tests/fuzz/targets.h"

namespace {

const ptrain::fuzz::Target& the_target() {
  static const ptrain::fuzz::Target& target = ptrain::fuzz::target(PTRAIN_FUZZ_TARGET);
  return target;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* count, char*** values) {
  if (*count != 3 || std::string((*values)[1]) != "--seeds") return 0;
  int number = 0;
  for (const std::string& seed : the_target().seeds())
    std::ofstream(std::string((*values)[2]) + "/seed-" + std::to_string(number++), std::ios::binary) << seed;
  std::exit(0);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t count) {
  try {
    the_target().run(std::string(reinterpret_cast<const char*>(bytes), count));
  } catch (const ptrain::Error& error) {
    if (error.code() == ptrain::ExitCode::defect) std::abort();  // what only we can cause
  }
  return 0;
}
