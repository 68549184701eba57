// A checkpoint, or any model directory, as a Hugging Face directory of its own, in another dtype where asked
// for.
#pragma once

#include <filesystem>
#include <optional>

#include "parallel/comm/communicator.h"
#include "src/io/storage.h"

namespace ptrain {

struct ExportReport {
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;  // of weights written
};

/// Collective: writes `directory`; the ranks share the tensors. Without `dtype` each tensor keeps the one it
/// has in the files. Where a checkpoint keeps wider weights in state/ and the dtype asked for is wider than
/// the files', those are taken. Every byte is checked against the checkpoint's checksums. Takes some MB of
/// memory. Errors, agreed on by all ranks: ExitCode::input: not a model, damaged; usage: onto itself;
/// resources.
/// storage: where hosts may have disks of their own, as if each had one; a checkpoint in parts is then
/// assembled on the first, of which a part or a copy must lie there.
ExportReport export_model(const Storage& storage, const std::filesystem::path& source,
                          const std::filesystem::path& directory, std::optional<DType> dtype);

}  // namespace ptrain
