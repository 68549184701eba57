// The benchmarks behind `ptrain bench NAME`: one function each. Not for comparing with other programs (that
// is benchmarks/compare.sh) and not for single kernels in depth (the drivers in benchmarks/).
#pragma once

#include <string>

#include "launch/runtime.h"
#include "src/io/json.h"
#include "src/model/spec.h"

namespace ptrain::bench {

/// What a benchmark found: for people, and the same figures for programs (--json).
struct Report {
  std::string text;
  Json values = Json::object();
};

/// Each is a collective of all ranks; the report of rank 0 counts.
Report run_gemm(Runtime& runtime, const LoadedConfig& loaded);
Report run_ops(Runtime& runtime, const LoadedConfig& loaded);
Report run_step(Runtime& runtime, const LoadedConfig& loaded);
Report run_decode(Runtime& runtime, const LoadedConfig& loaded);
Report run_collectives(Runtime& runtime, const LoadedConfig& loaded);
Report run_disk(Runtime& runtime, const LoadedConfig& loaded);

/// The model of model.path, or SmolLM2-135M's sizes where none is named.
ModelSpec spec_or_default(const LoadedConfig& loaded);

/// "NVIDIA H200", or the processor's name.
std::string device_name(const Runtime& runtime);

}  // namespace ptrain::bench
