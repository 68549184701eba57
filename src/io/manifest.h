// MANIFEST.json of a checkpoint: its files with their sizes and checksums, and every tensor with the slices
// that the files hold. Written last; a checkpoint without a whole one is none.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/extents.h"
#include "src/io/json.h"

namespace ptrain {

inline constexpr const char* manifest_name = "MANIFEST.json";

struct ManifestFile {
  std::string name;  // relative to the checkpoint: "model.safetensors", "state/rank-00003.h5"
  int64_t bytes = 0;
  // CRC32C of what lies outside of the tensors' slices, in ascending order: all of a small file, the header
  // of a safetensors file, HDF5's own structures. The slices have CRCs of their own, so that every byte has
  // one.
  uint32_t rest_crc = 0;
};

/// Which part of a checkpoint a directory holds: where nodes have disks of their own, each writes one.
struct ManifestPart {
  int index = 0;
  int of = 1;
  std::string save;  // the same in all parts that one save wrote, another in every other save
  std::string host;  // that wrote it, for messages

  bool operator==(const ManifestPart&) const = default;
};

struct Manifest {
  /// What the tensors are: the model's weights as the safetensors files hold them, and the optimizer's state.
  /// `master`: weights in f32 where the files' dtype is narrower.
  enum class Kind { weight, master, first_moment, second_moment };

  int64_t step = 0;
  /// Of a part, each weight lies whole in one, and the optimizer's state of a tensor may lie in several.
  ManifestPart part;
  Json run = Json::object();  // the trainer's own: position in the data, configuration, versions
  std::vector<ManifestFile> files;
  std::map<Kind, std::vector<StoredTensor>> tensors;

  const std::vector<StoredTensor>& of(Kind kind) const;
};
using StoredTensors = std::map<Manifest::Kind, std::vector<StoredTensor>>;

/// "weight", "master", "first_moment", "second_moment": also the first part of the datasets' names in state/.
std::string_view name_of(Manifest::Kind kind);

/// Whether a text begins as a checkpoint's manifest does; other programs have files of that name too.
bool is_manifest(std::string_view text);
/// The text of MANIFEST.json; its last member is the CRC32C of all bytes before.
std::string to_text(const Manifest& manifest);
/// Errors (ExitCode::input, naming `where`): not whole, a wrong CRC, something that contradicts itself or
/// points out of the checkpoint.
Manifest parse_manifest(std::string_view text, std::string_view where);
/// Reads a checkpoint's manifest and checks that every file is there with its size, and all bytes outside of
/// slices.
Manifest open_manifest(const std::filesystem::path& checkpoint);

/// Tensors as JSON and back, also for sending a rank's share to the one that writes the manifest.
Json to_json(const StoredTensors& tensors);
StoredTensors tensors_from_json(const Json& json, const std::string& where);

/// A file's entry: size and the CRC of all that no slice of `tensors` holds; those in other files do not
/// matter.
ManifestFile describe_file(const std::filesystem::path& directory, const std::string& name,
                           const StoredTensors& tensors = {});

/// Reads every byte that has a checksum; calls `fault` with a sentence for each that is wrong. Returns the
/// bytes read.
int64_t verify_checkpoint(const std::filesystem::path& checkpoint, const Manifest& manifest,
                          const std::function<void(const std::string&)>& fault);

}  // namespace ptrain
