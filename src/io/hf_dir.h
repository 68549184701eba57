// A Hugging Face model directory as it lies on disk: config.json, one or several safetensors files, small
// files of the tokenizer. Read strictly and by slices. Knows names and shapes, never families: what
// config.json means is src/model's.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/json.h"
#include "src/io/safetensors.h"

namespace ptrain {

// The one file, or the list of several.
inline constexpr const char* hf_single_name = "model.safetensors";
inline constexpr const char* hf_index_name = "model.safetensors.index.json";

/// The tensors of a directory's safetensors files and where they lie.
class HfDir {
 public:
  /// Reads config.json, the index and every file's header. Errors: ExitCode::input: what is missing, broken,
  /// pointing out of the directory, or a pickle, with what to do.
  static HfDir open(const std::filesystem::path& directory);

  const std::filesystem::path& path() const { return path_; }
  const Json& config() const { return config_; }

  /// All tensors, by file, then by place in it. Each is one slice, the whole; in a checkpoint the slices of
  /// its manifest with their CRCs. A tensor lies in one file.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;
  /// The open safetensors file of that name.
  const SafetensorsFile& file(std::string_view name) const;
  const std::map<std::string, SafetensorsFile, std::less<>>& files() const { return files_; }

  /// `destination` = a box of a tensor, converted to its float dtype; see SafetensorsFile::read_box.
  void read_box(std::string_view name, const Box& box, Tensor destination) const;

  /// A number for "the same model": of config.json, all names, dtypes and shapes, and the first 4 KiB of each
  /// tensor.
  uint64_t identity() const;

 private:
  void read_index(const std::filesystem::path& path);
  void read_checksums();
  void add_file(const std::string& name);

  std::filesystem::path path_;
  Json config_;
  std::string config_text_;
  std::map<std::string, SafetensorsFile, std::less<>> files_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

/// config.json of a directory that may have no weights. Errors: ExitCode::input.
Json read_hf_config(const std::filesystem::path& directory);

/// The small files that make a directory whole beside weights: configuration, tokenizer, chat template.
const std::vector<std::string>& small_hf_files();

/// Those of a directory, some with another text.
struct SmallFiles {
  std::filesystem::path directory;                                         // empty: there are none
  std::shared_ptr<const std::map<std::string, std::string>> changed = {};  // by name; null: as they lie there
};

/// Copies those that are there, and brings them to the disk; `except` are left out. Returns their names.
/// Errors: ExitCode::input (unreadable, above 256 MB), ExitCode::resources.
std::vector<std::string> copy_small_files(const SmallFiles& from, const std::filesystem::path& to,
                                          const std::vector<std::string>& except = {});

}  // namespace ptrain
