// What must stay the same when a run goes on from a checkpoint, and what may change with a warning.
#pragma once

#include <filesystem>

#include "src/data/document_source.h"
#include "src/io/json_fwd.h"
#include "src/train/base_model.h"

namespace ptrain {

/// The run as a checkpoint's manifest keeps it: {"fixed": {...}, "free": {...}}, key by key of the
/// configuration, and "names": the model's and the data's paths, for messages alone.
Json run_identity(const Config& config, const BaseModel& base, const DocumentSource& training_data);

/// Errors: ExitCode::usage where a fixed value of the checkpoint of `step` differs, naming both values.
void check_resume(const Json& saved, const Json& now, int64_t step);
/// A warning for each free value that differs.
void warn_of_changes(const Json& saved, const Json& now, int64_t step);

/// Makes `directory` an HF directory of the model files of `checkpoint` (everything but state/ and the
/// manifest): hard links, copies where links cannot be. Appears whole under its name. Errors:
/// ExitCode::resources.
void link_hf_files(const std::filesystem::path& checkpoint, const std::filesystem::path& directory);

}  // namespace ptrain
