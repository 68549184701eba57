// Writing a Hugging Face model directory from all ranks at once: which tensor lies in which file is planned
// from the list of tensors alone, then every rank writes its own slices at their final places.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/io/safetensors.h"

namespace ptrain {

/// A tensor to be written, as all ranks know it.
struct HfTensor {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;  // in the file
  int group = 0;             // tensors of different groups never share a file, for example pipeline stages
  int part = 0;  // of a checkpoint: whose disk holds the file; different ones never share one either
};

/// The files of a directory, before anything is written. A pure function of the tensors.
struct HfPlan {
  struct File {
    std::string name;
    SafetensorsLayout layout;
    int part = 0;
  };
  struct Place {
    size_t file = 0;
    size_t entry = 0;
  };

  std::vector<File> files;
  std::map<std::string, Place, std::less<>> places;
  std::string index_text;  // model.safetensors.index.json; empty where one file, model.safetensors, holds all
};

inline constexpr int64_t max_hf_file_bytes = 5'000'000'000;  // of tensors, as the Hub's own tools cut files

/// A new file begins with a group or a part, and before a tensor that would take the file above
/// `max_file_bytes`; a tensor never spans files. Errors: ExitCode::defect for a name given twice.
HfPlan plan_hf_files(const std::vector<HfTensor>& tensors, int64_t max_file_bytes = max_hf_file_bytes);

/// The plan of a part's own files: their names and the index are those of all.
HfPlan plan_of_part(const HfPlan& all, int part);

/// For one process: makes the files of a plan in their final length, headers written and on the disk. The
/// directory is there. Errors: ExitCode::resources.
void create_hf_files(const std::filesystem::path& directory, const HfPlan& plan);
/// The index of the plan's files, where there are several. See create_hf_files.
void write_hf_index(const std::filesystem::path& directory, const HfPlan& plan);

/// Where a slice of a tensor goes: its file and the place in it, still without CRCs. `entry` as the file
/// declares it. Errors (defect): no such tensor, or a slice outside of it.
struct HfTarget {
  StoredSlice stored;
  const SafetensorsEntry* entry = nullptr;
};
HfTarget target_of(const HfPlan& plan, std::string_view name, const Slice& slice);

/// Writes the files of a plan into a directory. The index comes last: until then nobody takes several files
/// for a model. config.json and the like are the caller's.
///
///   HfWriter writer(world, directory, plan);                        // collective
///   agreed(world, [&] { for (…) writer.write(name, slice, tensor); writer.sync(); });
///   writer.finish();                                                // collective
class HfWriter {
 public:
  /// Collective: rank 0 makes the directory and the files in their final length; then all go on.
  /// Errors, agreed on: ExitCode::resources.
  HfWriter(Communicator& world, std::filesystem::path directory, HfPlan plan);

  /// Writes this rank's slice of a tensor; `source` holds its elements in any float dtype. No two ranks may
  /// write an element twice, all together write each once. Errors: ExitCode::resources.
  void write(std::string_view name, const Slice& slice, Tensor source);
  /// What this rank wrote reaches the disk. Errors: ExitCode::resources.
  void sync();
  /// Collective: makes sure that every element of every tensor was written, then writes the index.
  void finish();

  const HfPlan& plan() const { return plan_; }
  /// What this rank wrote, by tensor, with the CRCs.
  const std::map<std::string, StoredTensor>& written() const { return written_; }

 private:
  Communicator& world_;
  std::filesystem::path directory_;
  HfPlan plan_;
  std::map<std::string, File> files_;  // open where this rank wrote
  std::map<std::string, StoredTensor> written_;
  std::vector<char> staging_;
};

}  // namespace ptrain
