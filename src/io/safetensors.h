// safetensors files: a strict reader of strangers' headers, and the layout of a file before its first byte is
// written, so that every rank can write its own slices. Not for directories with an index: hf_dir.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/buffer.h"
#include "src/io/extents.h"

namespace ptrain {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  int64_t offset = 0;  // bytes from the file's start
  int64_t bytes() const { return shape.numel() * size_bytes(dtype); }
};

/// The file format's name of a dtype: "F32", "BF16", …
std::string_view safetensors_name(DType dtype);
std::optional<DType> safetensors_dtype(std::string_view name);

/// A file to read. The header is at most 100 MB, an object without duplicate names; dtypes are known, shapes
/// agree with the offsets, and the tensors fill the file from the header's end to the file's end without hole
/// or overlap.
class SafetensorsFile {
 public:
  /// Errors: ExitCode::input, naming the file, the tensor and the values.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // by offset
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const SafetensorsEntry* find(std::string_view name) const;
  const File& file() const { return file_; }
  int64_t header_bytes() const { return header_bytes_; }  // where the first tensor begins

  /// `destination` (box.numel() elements, contiguous) = a box of a tensor, converted to the destination's
  /// float dtype. Errors: ExitCode::input when there is no such tensor; ExitCode::defect for a box outside of
  /// it.
  void read_box(std::string_view name, const Box& box, Tensor destination) const;
  /// A whole tensor as it lies in the file.
  OwnedTensor read(std::string_view name) const;

 private:
  File file_;
  int64_t header_bytes_ = 0;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

/// The tensor as extents.h sees it: one slice, the whole, in `file`.
StoredTensor stored_tensor(const SafetensorsEntry& entry, std::string file);

struct TensorDeclaration {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

/// A file to write: its first bytes, and where every tensor will lie.
struct SafetensorsLayout {
  std::string header;  // the length, the JSON and blanks up to a multiple of 8 bytes
  std::vector<SafetensorsEntry> entries;
  int64_t file_bytes = 0;
};

/// Tensors lie in the given order. Errors: ExitCode::defect for a name given twice; ExitCode::input for a
/// dtype or a size that the format cannot hold.
SafetensorsLayout plan_file(const std::vector<TensorDeclaration>& tensors,
                            const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

/// A file with these tensors, written at once, for small things such as logits.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace ptrain
