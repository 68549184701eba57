// Writing checkpoints: an HF directory, the optimizer's state beside it in HDF5, and a manifest. Saved so
// that a crash at any moment leaves the older one or the new one. Knows slices of named tensors and no
// optimizer. Finding and loading them is find.h's.
//
//   checkpoints/step-00000500/   config.json, tokenizer files, *.safetensors, state/rank-*.h5, MANIFEST.json
//   checkpoints/.tmp-step-…      in the making      checkpoints/.trash-…   being deleted: neither is ever
//   read
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/io/hf_write.h"
#include "src/io/manifest.h"

namespace ptrain {

/// A slice of a weight and of its optimizer state: what this rank writes, or where it wants it loaded to.
/// Each tensor is f32, contiguous, with slice.numel() elements; one without data is not written or not wanted
/// here. All slices of all ranks together hold each element of the weights exactly once, and the same for
/// each moment.
struct StateSlice {
  std::string name;  // HF
  Shape shape;       // of the whole tensor
  Slice slice;
  Tensor weight;
  Tensor first_moment;
  Tensor second_moment;
};

struct SaveRequest {
  std::filesystem::path root;    // <output>/checkpoints
  std::filesystem::path source;  // model directory whose small files are copied along
  int64_t step = 0;
  int64_t keep = 2;               // newest checkpoints that stay; 0 = all
  std::vector<HfTensor> tensors;  // as the safetensors files shall hold them, the same on every rank
  Json run = Json::object();      // kept in the manifest for the resume
};

/// Collective. Writes the checkpoint and returns its directory once it is whole and on the disk; then deletes
/// old ones. Weights go to safetensors rounded to their dtype there; where that is narrower than f32 they are
/// also kept in state/. Errors, agreed on by all ranks: ExitCode::resources (disk full, …): the older
/// checkpoints are untouched.
std::filesystem::path save_checkpoint(Communicator& world, const SaveRequest& request,
                                      std::span<const StateSlice> slices);

/// "step-00000500"
std::string checkpoint_name(int64_t step);
/// The directories of such names, newest first.
std::vector<std::pair<int64_t, std::filesystem::path>> list_steps(const std::filesystem::path& root);

}  // namespace ptrain
