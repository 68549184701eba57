// GGUF files (versions 2 and 3), read strictly: every count, length and offset is checked against the file
// before anything is allocated. De-quantises F32, F16, BF16, Q8_0, Q4_0 and Q4_1. What the metadata means for
// a model is import's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kernels/base/shape.h"
#include "src/io/file.h"

namespace ptrain {

/// How a tensor's elements are packed: blocks of so many elements in so many bytes.
struct GgufType {
  uint32_t id;
  std::string_view name;
  int64_t block_elements;
  int64_t block_bytes;
  bool is_readable;  // by GgufFile::read_rows
};
/// The type with that number, or nullptr.
const GgufType* gguf_type(uint32_t id);

struct GgufTensor {
  std::string name;
  const GgufType* type = nullptr;
  Shape shape;         // row-major, outermost first (the file lists innermost first)
  int64_t offset = 0;  // bytes from the file's start

  int64_t bytes() const { return shape.numel() / type->block_elements * type->block_bytes; }
};

/// A value of the metadata. Numbers keep their kind, not their width.
using GgufValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<std::string>>;

class GgufFile {
 public:
  /// Errors: ExitCode::input with the path, the key or tensor, and the values.
  static GgufFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  uint32_t version() const { return version_; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in file order
  const GgufTensor* find(std::string_view name) const;

  /// The value of a key as T (int64_t, double, bool, std::string or a vector of the first, second, fourth);
  /// nothing where the key is absent. Integers are taken for doubles. Errors (ExitCode::input): another kind.
  template <class T>
  std::optional<T> get(std::string_view key) const;
  /// The same, but the key must be there. Errors: ExitCode::input.
  template <class T>
  T required(std::string_view key) const;

  /// Rows [first, first + count) of a tensor (all dimensions but the last are rows) as f32.
  /// Errors: ExitCode::input for a type that cannot be read, by name.
  void read_rows(const GgufTensor& tensor, int64_t first, int64_t count, float* out,
                 std::vector<char>& staging) const;

 private:
  void check_tensors(int64_t data_begin);

  File file_;
  uint32_t version_ = 0;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

/// One line for people: "llama", "32", "[49152 texts]".
std::string to_string(const GgufValue& value);

/// The elements of `blocks` blocks as f32.
void dequantise(const GgufType& type, const char* blocks, int64_t num_blocks, float* out);

}  // namespace ptrain
