// What a checkpoint is: an HF directory, the optimizer's state beside it in HDF5, and a manifest. Knows
// slices of named tensors and no optimizer. Saving them is checkpoint_saver.h's, finding and loading
// find.h's.
//
//   checkpoints/step-00000500/   config.json, tokenizer files, *.safetensors, state/rank-*.h5, MANIFEST.json
//   checkpoints/.tmp-step-…      in the making      checkpoints/.trash-…   being deleted: neither is ever
//   read
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/io/hf_dir.h"
#include "src/io/hf_write.h"
#include "src/io/json.h"
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

/// Who writes into one directory. On shared storage all ranks; else those of one node, and the whole
/// checkpoint is `of` such parts.
struct SavePart {
  Communicator& group;  // its first rank leads: makes the directory, commits, deletes
  int index = 0;
  int of = 1;
  std::string host;  // see ManifestPart
};

struct SaveRequest {
  std::filesystem::path root;  // <output>/checkpoints
  SmallFiles small_files;      // that are copied along
  int64_t step = 0;
  int64_t keep = 2;  // newest checkpoints that stay; 0 = all
  std::vector<HfTensor>
      tensors;                // of all parts, as the safetensors files shall hold them, the same everywhere
  Json run = Json::object();  // kept in the manifest for the resume
  std::string save;           // of several parts: see ManifestPart
  // Asked for each one beyond `keep`, on the leader's thread: false: not yet. Empty: all may go.
  std::function<bool(const std::filesystem::path&)> may_delete = {};
};

/// "step-00000500"
std::string checkpoint_name(int64_t step);
/// Where step-N is made, and where it lies while it is being deleted.
std::filesystem::path making_of_checkpoint(const std::filesystem::path& root, int64_t step);
std::filesystem::path trash_of_checkpoint(const std::filesystem::path& root, int64_t step);
/// The directories of names like step-00000500, newest first.
std::vector<std::pair<int64_t, std::filesystem::path>> list_steps(const std::filesystem::path& root);
/// What earlier saves left half done: all that is being made or deleted.
std::vector<std::filesystem::path> list_leftovers(const std::filesystem::path& root);

}  // namespace ptrain
