#include "src/convert/inspect.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "kernels/base/error.h"
#include "src/convert/gguf.h"
#include "src/data/token_file.h"
#include "src/io/file.h"
#include "src/io/hdf5.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "src/io/manifest.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t max_manifest_bytes = int64_t{1} << 30;

/// Text that grows line by line.
class Lines {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

/// A stranger's text on one line, without control characters, at most 100 bytes.
std::string shown(const std::string& text) {
  std::string quoted = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  quoted = quoted.substr(1, quoted.size() - 2);
  if (quoted.size() <= 100) return quoted;
  size_t cut = 97;
  while ((static_cast<unsigned char>(quoted[cut]) & 0xc0) == 0x80) --cut;  // not inside a character
  return quoted.substr(0, cut) + "…";
}

std::string size_text(int64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} bytes", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  if (bytes < 10'000'000'000) return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
  return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

/// One line a tensor, then their sum by type.
class TensorTable {
 public:
  void add(const std::string& name, std::string_view type, const Shape& shape, int64_t bytes) {
    rows_.push_back(fmt::format("  {:<8} {:<20} {}", type, to_string(shape), shown(name)));
    elements_ += shape.numel();
    bytes_[std::string(type)] += bytes;
  }
  void print(Lines& lines) const {
    std::string types;
    for (const auto& [type, bytes] : bytes_) {
      types += fmt::format("{}{} of {}", types.empty() ? "" : ", ", size_text(bytes), type);
    }
    lines.add("{} tensors, {} elements: {}", rows_.size(), elements_, types.empty() ? "nothing" : types);
    for (const std::string& row : rows_) lines.add("{}", row);
  }

 private:
  std::vector<std::string> rows_;
  int64_t elements_ = 0;
  std::map<std::string, int64_t> bytes_;
};

void add_stored(TensorTable& table, const StoredTensor& tensor) {
  table.add(tensor.name, name_of(tensor.dtype), tensor.shape,
            tensor.shape.numel() * size_bytes(tensor.dtype));
}

void describe_config(const Json& config, Lines& lines) {
  std::string text;
  for (const char* key :
       {"model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "intermediate_size", "vocab_size", "max_position_embeddings"}) {
    const auto it = config.find(key);
    if (it == config.end()) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", key,
                        it->is_string() ? shown(it->get<std::string>()) : shown(it->dump()));
  }
  lines.add("config.json: {}", text);
}

/// How many elements of a float tensor are not finite.
int64_t count_not_finite(const Tensor& tensor) {
  const auto count = [&]<class Word>(Word exponent) {
    const auto* words = static_cast<const Word*>(tensor.data);
    return std::count_if(words, words + tensor.shape.numel(),
                         [&](Word word) { return (word & exponent) == exponent; });
  };
  switch (tensor.dtype) {
    case DType::f64:
      return count(uint64_t{0x7ff0000000000000});
    case DType::f32:
      return count(uint32_t{0x7f800000});
    case DType::bf16:
      return count(uint16_t{0x7f80});
    case DType::f16:
      return count(uint16_t{0x7c00});
    default:
      return 0;
  }
}

void note_not_finite(const fs::path& path, const std::string& name, int64_t count, Inspection& result) {
  if (count > 0)
    result.faults.push_back(
        fmt::format("{}: {}: {} values are not finite", path.string(), shown(name), count));
}

/// Reads every tensor of a safetensors file: the disk gives all bytes, and they are numbers.
void read_all(const SafetensorsFile& file, Inspection& result) {
  for (const SafetensorsEntry& entry : file.entries()) {
    try {
      note_not_finite(file.file().path(), entry.name, count_not_finite(file.read(entry.name).view), result);
      result.read_bytes += entry.bytes();
    } catch (const Error& error) {
      result.faults.push_back(error.what());
    }
  }
}

Inspection inspect_model(const fs::path& path, Checksums checksums) {
  const HfDir model = HfDir::open(path);
  Lines lines;
  lines.add("{}: a Hugging Face model directory", path.string());
  describe_config(model.config(), lines);
  for (const auto& [name, file] : model.files()) {
    lines.add("{}: {}, {} tensors", name, size_text(file.file().bytes()), file.entries().size());
  }
  for (const std::string& name : small_hf_files()) {
    if (fs::exists(path / name))
      lines.add("{}: {}", name, size_text(static_cast<int64_t>(fs::file_size(path / name))));
  }
  TensorTable table;
  for (const StoredTensor& tensor : model.tensors()) add_stored(table, tensor);
  table.print(lines);
  Inspection result{.text = lines.take()};
  if (checksums == Checksums::verify) {
    for (const auto& [name, file] : model.files()) read_all(file, result);
  }
  return result;
}

/// Every file of a manifest by itself, so that one fault does not hide the next.
void look_at_files(const fs::path& path, const Manifest& manifest, Inspection& result) {
  for (const ManifestFile& file : manifest.files) {
    try {
      const int64_t bytes = File::open(path / file.name).bytes();
      check(bytes == file.bytes, ExitCode::input, "{}: has {} bytes, {} says {}", (path / file.name).string(),
            bytes, manifest_name, file.bytes);
      const ManifestFile found = describe_file(path, file.name, manifest.tensors);
      check(found.rest_crc == file.rest_crc, ExitCode::input,
            "{}: is damaged outside of its tensors: the CRC32C there is {:08x}, {} says {:08x}",
            (path / file.name).string(), found.rest_crc, manifest_name, file.rest_crc);
    } catch (const Error& error) {
      result.faults.push_back(error.what());
    }
  }
}

/// What lies there beside the manifest's files: nothing vouches for it.
void list_strangers(const fs::path& path, const Manifest& manifest, Lines& lines) {
  std::set<std::string> known = {manifest_name};
  for (const ManifestFile& file : manifest.files) known.insert(file.name);
  std::error_code error;
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().lexically_relative(path).string();
    if (!it->is_directory(error) && !known.contains(name))
      lines.add("{}: not in {}, not checked", shown(name), manifest_name);
  }
}

Inspection inspect_checkpoint(const fs::path& path, Checksums checksums) {
  Inspection result;
  const bool is_verifying = checksums == Checksums::verify;
  const Manifest manifest = is_verifying ? parse_manifest(read_text(path / manifest_name, max_manifest_bytes),
                                                          (path / manifest_name).string())
                                         : open_manifest(path);
  if (is_verifying) look_at_files(path, manifest, result);
  Lines lines;
  lines.add("{}: a checkpoint of step {}", path.string(), manifest.step);
  if (fs::exists(path / "config.json") && result.faults.empty()) describe_config(read_hf_config(path), lines);
  if (!manifest.run.empty()) lines.add("run: {}", manifest.run.dump());
  for (const ManifestFile& file : manifest.files)
    lines.add("{}: {}", shown(file.name), size_text(file.bytes));
  for (const auto& [kind, tensors] : manifest.tensors) {
    size_t slices = 0;
    for (const StoredTensor& tensor : tensors) slices += tensor.slices.size();
    lines.add("{}: {} tensors in {} slices", name_of(kind), tensors.size(), slices);
  }
  TensorTable table;
  for (const StoredTensor& tensor : manifest.of(Manifest::Kind::weight)) add_stored(table, tensor);
  table.print(lines);
  list_strangers(path, manifest, lines);
  result.text = lines.take();
  if (is_verifying) {
    std::set<std::string> said(result.faults.begin(), result.faults.end());
    result.verified_bytes = verify_checkpoint(path, manifest, [&](const std::string& fault) {
      if (said.insert(fault).second) result.faults.push_back(fault);  // a missing file is said once
    });
  }
  return result;
}

/// A directory of checkpoints: each of them by one line, damaged ones with the reason.
Inspection inspect_checkpoints(const fs::path& path, const std::vector<fs::path>& steps,
                               Checksums checksums) {
  Inspection result;
  Lines lines;
  lines.add("{}: {} checkpoints", path.string(), steps.size());
  for (const fs::path& step : steps) {
    try {
      const Inspection one = inspect_checkpoint(step, checksums);
      lines.add("{}: {}", step.filename().string(), one.faults.empty() ? "whole" : "damaged");
      result.faults.insert(result.faults.end(), one.faults.begin(), one.faults.end());
      result.verified_bytes += one.verified_bytes;
    } catch (const Error& error) {
      lines.add("{}: damaged", step.filename().string());
      result.faults.push_back(error.what());
    }
  }
  result.text = lines.take();
  return result;
}

Inspection inspect_directory(const fs::path& path, Checksums checksums) {
  const bool has_config = fs::exists(path / "config.json");
  const bool has_manifest = fs::exists(path / manifest_name);
  if (has_manifest && (!has_config || is_manifest(read_text(path / manifest_name, max_manifest_bytes)))) {
    return inspect_checkpoint(path, checksums);
  }
  if (has_config) return inspect_model(path, checksums);
  for (const fs::path& directory : {path, path / "checkpoints"}) {
    std::vector<fs::path> steps;
    std::error_code error;
    for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
      if (it->is_directory() && it->path().filename().string().starts_with("step-"))
        steps.push_back(it->path());
    }
    std::sort(steps.begin(), steps.end());
    if (!steps.empty()) return inspect_checkpoints(directory, steps, checksums);
  }
  fail(ExitCode::input, "{}: neither a model directory (config.json) nor a checkpoint ({})", path.string(),
       manifest_name);
}

Inspection inspect_safetensors(const fs::path& path, Checksums checksums) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  Lines lines;
  lines.add("{}: safetensors, {}, header of {} bytes", path.string(), size_text(file.file().bytes()),
            file.header_bytes());
  for (const auto& [key, value] : file.metadata()) lines.add("metadata {}: {}", shown(key), shown(value));
  TensorTable table;
  for (const SafetensorsEntry& entry : file.entries()) {
    table.add(entry.name, name_of(entry.dtype), entry.shape, entry.bytes());
  }
  table.print(lines);
  Inspection result{.text = lines.take()};
  if (checksums == Checksums::verify) read_all(file, result);
  return result;
}

/// Every row of a tensor, as numbers.
void read_all(const GgufFile& file, const GgufTensor& tensor, Inspection& result) {
  if (!tensor.type->is_readable || tensor.shape.numel() == 0) return;
  const int64_t columns = tensor.shape[-1];
  std::vector<float> row(static_cast<size_t>(columns));
  std::vector<char> staging;
  int64_t count = 0;
  for (int64_t at = 0; at < tensor.shape.numel() / columns; ++at) {
    file.read_rows(tensor, at, 1, row.data(), staging);
    count += count_not_finite(Tensor(row.data(), {columns}, DType::f32));
  }
  note_not_finite(file.path(), tensor.name, count, result);
  result.read_bytes += tensor.bytes();
}

Inspection inspect_gguf(const fs::path& path, Checksums checksums) {
  const GgufFile file = GgufFile::open(path);
  Lines lines;
  lines.add("{}: GGUF version {}, {}", path.string(), file.version(),
            size_text(static_cast<int64_t>(fs::file_size(path))));
  for (const auto& [key, value] : file.metadata()) lines.add("{}: {}", shown(key), shown(to_string(value)));
  TensorTable table;
  for (const GgufTensor& tensor : file.tensors()) {
    table.add(tensor.name, tensor.type->name, tensor.shape, tensor.bytes());
  }
  table.print(lines);
  Inspection result{.text = lines.take()};
  if (checksums == Checksums::verify) {
    for (const GgufTensor& tensor : file.tensors()) read_all(file, tensor, result);
  }
  return result;
}

Inspection inspect_hdf5(const fs::path& path, Checksums checksums) {
  const Hdf5Reader file(path);
  Lines lines;
  lines.add("{}: HDF5, {}", path.string(), size_text(static_cast<int64_t>(fs::file_size(path))));
  TensorTable table;
  for (const std::string& name : file.datasets()) {
    const Hdf5Dataset dataset = file.dataset(name);
    table.add(name, name_of(dataset.dtype), dataset.shape, dataset.bytes());
  }
  table.print(lines);
  Inspection result{.text = lines.take()};
  const bool is_token_file = file.has_dataset("offsets") && file.has_dataset("checksums");
  if (checksums == Checksums::verify && is_token_file) {
    try {
      TokenFile(path).verify(0, 1);
      result.verified_bytes = static_cast<int64_t>(fs::file_size(path));
    } catch (const Error& error) {
      result.faults.push_back(error.what());
    }
  }
  return result;
}

}  // namespace

Inspection inspect(const fs::path& path, Checksums checksums) {
  std::error_code error;
  check(fs::exists(path, error), ExitCode::input, "{}: no such file or directory", path.string());
  if (fs::is_directory(path, error)) return inspect_directory(path, checksums);
  const File file = File::open(path);
  std::string magic(static_cast<size_t>(std::min<int64_t>(16, file.bytes())), '\0');
  file.read_at(0, magic.data(), static_cast<int64_t>(magic.size()));
  if (magic.starts_with("GGUF")) return inspect_gguf(path, checksums);
  if (magic.starts_with("\x89HDF\r\n\x1a\n")) return inspect_hdf5(path, checksums);
  if (path.extension() == ".safetensors" || (magic.size() > 8 && magic[8] == '{'))
    return inspect_safetensors(path, checksums);
  check(!magic.starts_with("PK") && !magic.starts_with("\x80\x02"), ExitCode::input,
        "{}: looks like a pickle, which is never read: convert it to safetensors", path.string());
  fail(ExitCode::input, "{}: is no safetensors, GGUF or HDF5 file", path.string());
}

}  // namespace ptrain
