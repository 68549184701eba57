// ptrain export CHECKPOINT DIR: a checkpoint becomes a Hugging Face directory of its own.
#include <fmt/core.h>

#include "kernels/base/error.h"
#include "launch/runtime.h"
#include "launch/verbs.h"
#include "src/convert/export.h"
#include "src/io/elements.h"

namespace ptrain {

int run_export(const Arguments& arguments) {
  std::optional<DType> dtype;
  if (arguments.has("dtype")) {
    dtype = float_dtype_of(arguments.value("dtype"));
    check(dtype.has_value(), ExitCode::usage, "--dtype is {}, expected f32, bf16 or f16",
          arguments.value("dtype"));
  }
  return run_on_ranks(arguments, Config::LogLevel::info, [&](Runtime& runtime) {
    const Storage storage(runtime.world, StorageKind::per_node,
                          disk_of_each_host(runtime.session.hosts(), runtime.world.size()));
    const ExportReport report =
        export_model(storage, runtime.arguments.words[0], runtime.arguments.words[1], dtype);
    if (runtime.is_first()) {
      fmt::print("{}: {} tensors, {} parameters, {} bytes\n", runtime.arguments.words[1], report.tensors,
                 report.parameters, report.bytes);
    }
    return 0;
  });
}

}  // namespace ptrain
