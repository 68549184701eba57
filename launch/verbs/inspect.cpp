// ptrain inspect PATH: what a checkpoint, model directory, safetensors, GGUF or HDF5 file holds.
#include <fmt/core.h>

#include "kernels/base/error.h"
#include "launch/verbs.h"
#include "src/convert/inspect.h"

namespace ptrain {

int run_inspect(const Arguments& arguments) {
  const bool is_verifying = arguments.has("verify");
  const Inspection found = inspect(arguments.words[0], is_verifying ? Checksums::verify : Checksums::skip);
  fmt::print("{}", found.text);
  for (const std::string& fault : found.faults) fmt::print("DAMAGED {}\n", fault);
  check(found.faults.empty(), ExitCode::input, "{}: {} damaged places", arguments.words[0],
        found.faults.size());
  if (is_verifying && found.verified_bytes > 0) fmt::print("verified: {} bytes\n", found.verified_bytes);
  if (is_verifying && found.verified_bytes == 0) {
    fmt::print("verified: the structure; {} bytes were read, this kind of file has no checksums\n",
               found.read_bytes);
  }
  return 0;
}

}  // namespace ptrain
