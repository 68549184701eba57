// Tensors from files to all ranks: every byte is read by one rank and travels to those that want it. For
// model directories and checkpoints alike; knows stored slices, no formats.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/io/extents.h"
#include "src/io/hf_dir.h"

namespace ptrain {

/// A part of a tensor that this rank needs.
struct WantedSlice {
  std::string name;
  Shape shape;  // of the whole tensor, as the model says
  Slice slice;
  Tensor destination;  // slice.numel() elements, contiguous; its float dtype may differ from the file's
};

/// Where tensors come from. The same on every rank.
struct TensorSource {
  std::string where;  // for messages: the directory
  std::span<const StoredTensor> tensors;
  std::function<const File&(const std::string& name)> file;  // for ranks that see it
  /// Whether a rank sees a file; empty: all see all. The same on every rank; each file is seen by one at
  /// least.
  std::function<bool(const std::string& name, int rank)> is_seen_by = {};
};
TensorSource source_of(const HfDir& directory);

/// Collective over `world`: fills the destinations of all ranks' `wanted`. The files' chunks are dealt out
/// among the ranks; each chunk that somebody wants is read by one rank, checked against its CRC where there
/// is one, and sent to the others. Returns the bytes that this rank read. Errors, agreed on by all ranks:
/// ExitCode::input: a tensor is missing, has another shape, or is damaged.
int64_t load_slices(Communicator& world, const TensorSource& source, std::span<const WantedSlice> wanted);

/// Collective over `world`: reads every chunk of the source once, by a rank that sees it, and checks its CRC.
/// Returns the bytes that this rank read. Errors, agreed on by all ranks: ExitCode::input: damaged.
int64_t check_tensors(Communicator& world, const TensorSource& source);

}  // namespace ptrain
