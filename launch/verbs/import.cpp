// ptrain import SOURCE DIR: a GGUF file becomes a Hugging Face directory.
#include <fmt/core.h>

#include "kernels/base/error.h"
#include "launch/verbs.h"
#include "src/convert/import.h"
#include "src/io/elements.h"

namespace ptrain {

int run_import(const Arguments& arguments) {
  const std::string name = arguments.value("dtype", "f32");
  const std::optional<DType> dtype = float_dtype_of(name);
  check(dtype.has_value(), ExitCode::usage, "--dtype is {}, expected f32, bf16 or f16", name);
  const ImportReport report = import_gguf(arguments.words[0], arguments.words[1], *dtype);
  fmt::print("{}: {} tensors, {} parameters, {} bytes of {}\n", arguments.words[1], report.tensors,
             report.parameters, report.bytes, name_of(*dtype));
  return 0;
}

}  // namespace ptrain
