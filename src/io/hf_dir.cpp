#include "src/io/hf_dir.h"

#include <algorithm>
#include <set>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/base/rng.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/manifest.h"
#include "src/io/s3.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t max_config_bytes = int64_t{16} << 20;
constexpr int64_t max_small_bytes = int64_t{256} << 20;

/// A name that means a file of this very directory.
bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\\') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

/// Errors where a file of the directory is a link to somewhere else. The Hub's own cache is let through:
/// there snapshots/<revision>/<name> is a link to ../../blobs/<hash>.
void check_link(const fs::path& directory, const fs::path& path) {
  std::error_code error;
  if (!fs::is_symlink(fs::symlink_status(path, error))) return;
  const fs::path target = fs::canonical(path, error);
  const fs::path home = fs::canonical(directory, error);
  const bool is_inside = !error && target.parent_path() == home;
  const bool is_in_cache = !error && home.parent_path().filename() == "snapshots" &&
                           target.parent_path() == home.parent_path().parent_path() / "blobs";
  check(is_inside || is_in_cache, ExitCode::input,
        "{}: is a symbolic link out of its directory{}: put the file itself there, or a hard link",
        path.string(), error ? "" : " to " + target.string());
}

/// Names of a directory's files that end in one of the endings.
std::vector<std::string> files_ending_in(const fs::path& directory, const std::vector<std::string>& endings) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    for (const std::string& ending : endings) {
      if (name.size() > ending.size() && name.ends_with(ending)) names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

[[noreturn]] void fail_without_weights(const fs::path& directory) {
  const auto pickles = files_ending_in(directory, {".bin", ".pt", ".pth", ".ckpt"});
  const std::string where = directory.string();
  check(
      pickles.empty(), ExitCode::input,
      "{}: its weights are in {}, a pickle, which can run code when it is opened and is therefore never "
      "read: "
      "convert it to safetensors (in Python: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT))",
      where, pickles.empty() ? "" : pickles[0]);
  const auto gguf = files_ending_in(directory, {".gguf"});
  check(gguf.empty(), ExitCode::input,
        "{}: its weights are in {}: make a model directory of it by `ptrain import {}/{} DIR`", where,
        gguf.empty() ? "" : gguf[0], where, gguf.empty() ? "" : gguf[0]);
  const auto others = files_ending_in(directory, {".safetensors"});
  check(others.empty(), ExitCode::input, "{}: there is {}, but neither {} nor {}", where,
        others.empty() ? "" : others[0], hf_single_name, hf_index_name);
  fail(ExitCode::input, "{}: there are no weights: neither {} nor {} is there", where, hf_single_name,
       hf_index_name);
}

}  // namespace

HfDir HfDir::open(const fs::path& directory) {
  HfDir result;
  result.path_ = directory;
  std::error_code error;
  refuse_s3(directory);
  check(fs::is_directory(directory, error), ExitCode::input, "{}: {}, expected a model directory",
        directory.string(), fs::exists(directory, error) ? "is not a directory" : "no such directory");
  const fs::path config = directory / "config.json";
  check(fs::exists(config, error), ExitCode::input, "{}: config.json is missing: is it a model directory?",
        directory.string());
  check_link(directory, config);
  result.config_text_ = read_text(config, max_config_bytes);
  result.config_ = parse_json(result.config_text_, config.string());
  if (fs::exists(fs::symlink_status(directory / hf_single_name, error))) {
    result.add_file(hf_single_name);
    for (const SafetensorsEntry& entry : result.file(hf_single_name).entries()) {
      result.tensors_.push_back(stored_tensor(entry, hf_single_name));
    }
  } else if (fs::exists(directory / hf_index_name, error)) {
    result.read_index(directory / hf_index_name);
  } else {
    fail_without_weights(directory);
  }
  for (size_t i = 0; i < result.tensors_.size(); ++i) result.index_[result.tensors_[i].name] = i;
  if (fs::exists(directory / manifest_name, error)) result.read_checksums();
  return result;
}

void HfDir::read_checksums() {
  const fs::path path = path_ / manifest_name;
  const Manifest manifest =
      parse_manifest(read_text(path, std::numeric_limits<int64_t>::max()), path.string());
  for (const StoredTensor& known : manifest.of(Manifest::Kind::weight)) {
    const auto it = index_.find(known.name);
    if (it == index_.end()) continue;
    StoredTensor& tensor = tensors_[it->second];
    bool is_same = tensor.shape == known.shape && tensor.dtype == known.dtype;
    for (const StoredSlice& slice : known.slices) {
      is_same = is_same && slice.packing == Packing::in_tensor && slice.file == tensor.slices[0].file &&
                slice.offset == tensor.slices[0].offset;
    }
    check(is_same && !known.slices.empty(), ExitCode::input, "{}: the tensor {} is not as {} says",
          path_.string(), known.name, manifest_name);
    tensor.slices = known.slices;
  }
}

void HfDir::add_file(const std::string& name) {
  check_link(path_, path_ / name);
  files_.emplace(name, SafetensorsFile::open(path_ / name));
}

void HfDir::read_index(const fs::path& path) {
  const std::string where = path.string();
  check_link(path_, path);
  const Json index = read_json(path, max_small_bytes);
  check(index.is_object(), ExitCode::input, "{}: is {}, expected an object", where, kind_of(index));
  const Json& map = member(index, "weight_map", where);
  check(map.is_object() && !map.empty(), ExitCode::input,
        "{}: \"weight_map\" is {}, expected an object that says for each tensor in which file it is", where,
        map.is_object() ? "empty" : kind_of(map));
  std::map<std::string, std::set<std::string>> tensors_of;  // by file
  for (const auto& [tensor, value] : map.items()) {
    const auto file = json_cast<std::string>(value, tensor, where + ": weight_map");
    check(is_plain_name(file), ExitCode::input,
          "{}: weight_map sends \"{}\" to {}, which is no plain file name: files lie in the directory "
          "itself",
          where, tensor, Json(file).dump());
    check(!file.ends_with(".bin") && !file.ends_with(".pt"), ExitCode::input,
          "{}: weight_map sends \"{}\" to \"{}\", a pickle, which is never read: convert the model to "
          "safetensors",
          where, tensor, file);
    tensors_of[file].insert(tensor);
  }
  int64_t bytes = 0;
  for (const auto& [file, names] : tensors_of) {
    std::error_code error;
    check(fs::exists(fs::symlink_status(path_ / file, error)), ExitCode::input,
          "{}: {} is missing in {}; {} of its tensors are needed, \"{}\" among them", where, file,
          path_.string(), names.size(), *names.begin());
    add_file(file);
    size_t found = 0;
    for (const SafetensorsEntry& entry : files_.at(file).entries()) {
      if (!names.count(entry.name)) continue;
      ++found;
      bytes += entry.bytes();
      tensors_.push_back(stored_tensor(entry, file));
    }
    if (found == names.size()) continue;
    for (const std::string& name : names) {
      check(files_.at(file).find(name) != nullptr, ExitCode::input,
            "{}: weight_map says that \"{}\" is in {}, but it is not there", where, name, file);
    }
  }
  const auto metadata = optional_or<Json>(index, "metadata", Json::object(), where);
  const Json total =
      metadata.is_object() && metadata.contains("total_size") ? metadata["total_size"] : Json();
  if (total.is_number_integer() && total != bytes) {
    log::warn("{}: total_size is {}, but the tensors of the index have {} bytes", where, total.dump(), bytes);
  }
}

const StoredTensor* HfDir::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const SafetensorsFile& HfDir::file(std::string_view name) const {
  const auto it = files_.find(name);
  check(it != files_.end(), "{}: {} is not open", path_.string(), name);
  return it->second;
}

void HfDir::read_box(std::string_view name, const Box& box, Tensor destination) const {
  const StoredTensor* tensor = find(name);
  check(tensor != nullptr, ExitCode::input, "{}: there is no tensor \"{}\"", path_.string(), name);
  file(tensor->slices[0].file).read_box(name, box, destination);
}

uint64_t HfDir::identity() const {
  std::string text = config_text_;
  std::vector<char> head;
  std::vector<const StoredTensor*> by_name;
  for (const StoredTensor& tensor : tensors_) by_name.push_back(&tensor);
  std::sort(by_name.begin(), by_name.end(), [](auto* a, auto* b) { return a->name < b->name; });
  for (const StoredTensor* tensor : by_name) {
    const int64_t bytes = std::min<int64_t>(4096, tensor->shape.numel() * size_bytes(tensor->dtype));
    head.resize(static_cast<size_t>(bytes));
    file(tensor->slices[0].file).file().read_at(tensor->slices[0].offset, head.data(), bytes);
    text += fmt::format("\n{} {} {} {:08x}", tensor->name, name_of(tensor->dtype), to_string(tensor->shape),
                        crc32c(head.data(), head.size()));
  }
  return hash_of(text);
}

Json read_hf_config(const fs::path& directory) {
  std::error_code error;
  check(fs::is_directory(directory, error), ExitCode::input, "{}: {}, expected a model directory",
        directory.string(), fs::exists(directory, error) ? "is not a directory" : "no such directory");
  const fs::path path = directory / "config.json";
  check_link(directory, path);
  return read_json(path, max_config_bytes);
}

const std::vector<std::string>& small_hf_files() {
  static const std::vector<std::string> names = {
      "config.json",     "generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
      "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
      "merges.txt",      "chat_template.jinja",     "chat_template.json"};
  return names;
}

std::vector<std::string> copy_small_files(const SmallFiles& from, const fs::path& to,
                                          const std::vector<std::string>& except) {
  std::vector<std::string> copied;
  if (from.directory.empty()) return copied;
  for (const std::string& name : small_hf_files()) {
    if (std::find(except.begin(), except.end(), name) != except.end()) continue;
    const fs::path path = from.directory / name;
    std::error_code error;
    if (from.changed && from.changed->contains(name)) {
      write_text(to / name, from.changed->at(name));
    } else if (fs::exists(fs::symlink_status(path, error))) {
      check_link(from.directory, path);
      write_text(to / name, read_text(path, max_small_bytes));
    } else {
      continue;
    }
    copied.push_back(name);
  }
  return copied;
}

}  // namespace ptrain
