#include "src/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <set>

#include "kernels/base/error.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

static_assert(std::endian::native == std::endian::little, "the file's numbers are little-endian");

constexpr int64_t length_bytes = 8;
constexpr int64_t max_header_bytes = 100'000'000;
constexpr int64_t max_tensor_bytes = int64_t{1} << 53;  // JSON's numbers are exact up to here

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr std::array<DTypeName, 12> dtype_names = {{{DType::f64, "F64"},
                                                    {DType::f32, "F32"},
                                                    {DType::bf16, "BF16"},
                                                    {DType::f16, "F16"},
                                                    {DType::f8_e4m3, "F8_E4M3"},
                                                    {DType::f8_e5m2, "F8_E5M2"},
                                                    {DType::i64, "I64"},
                                                    {DType::i32, "I32"},
                                                    {DType::i16, "I16"},
                                                    {DType::i8, "I8"},
                                                    {DType::u8, "U8"},
                                                    {DType::boolean, "BOOL"}}};

int64_t to_number(const Json& value, std::string_view key, const std::string& where) {
  const auto number = json_cast<int64_t>(value, key, where);
  check(number >= 0, ExitCode::input, "{}: \"{}\" is {}, expected no negative number", where, key, number);
  return number;
}

/// bytes = elements of the shape * size of one, or nothing where that is no sensible number. Empty dimensions
/// count as one in that judgement, so that no product of a part of the shape can overflow later.
std::optional<int64_t> bytes_of(const Json& extents, DType dtype, Shape& shape, const std::string& where) {
  int64_t bytes = size_bytes(dtype);
  for (const Json& value : extents) {
    const int64_t extent = to_number(value, "shape", where);
    shape.push_back(extent);
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(extent, 1), &bytes) || bytes > max_tensor_bytes) {
      return std::nullopt;
    }
  }
  return shape.numel() == 0 ? 0 : bytes;
}

SafetensorsEntry parse_entry(const std::string& name, const Json& value, int64_t header_end,
                             int64_t file_bytes, const std::string& path) {
  const std::string where = fmt::format("{}: tensor \"{}\"", path, name);
  check(value.is_object(), ExitCode::input, "{} is {}, expected an object", where, kind_of(value));
  const auto dtype_name = required<std::string>(value, "dtype", where);
  const std::optional<DType> dtype = safetensors_dtype(dtype_name);
  check(dtype.has_value(), ExitCode::input, "{} has the dtype \"{}\", which is not supported", where,
        dtype_name);
  const Json& extents = member(value, "shape", where);
  check(extents.is_array(), ExitCode::input, "{}: \"shape\" is {}, expected an array", where,
        kind_of(extents));
  check(extents.size() <= Shape::max_dims, ExitCode::input, "{} has {} dimensions, at most {} are supported",
        where, extents.size(), int{Shape::max_dims});
  const Json& offsets = member(value, "data_offsets", where);
  check(offsets.is_array() && offsets.size() == 2, ExitCode::input,
        "{}: \"data_offsets\" is not an array of two numbers", where);
  check(value.size() == 3, ExitCode::input, "{} has {} members, expected dtype, shape and data_offsets",
        where, value.size());
  const int64_t begin = to_number(offsets[0], "data_offsets", where);
  const int64_t end = to_number(offsets[1], "data_offsets", where);
  check(begin <= end && end <= file_bytes - header_end, ExitCode::input,
        "{} has data_offsets [{}, {}], but the file holds {} bytes of data{}", where, begin, end,
        file_bytes - header_end, begin <= end ? ": is it truncated?" : "");
  SafetensorsEntry entry{name, *dtype, {}, header_end + begin};
  const std::optional<int64_t> bytes = bytes_of(extents, *dtype, entry.shape, where);
  check(bytes == end - begin, ExitCode::input, "{}: {} of shape {} has not the {} bytes of its data_offsets",
        where, dtype_name, extents.dump(), end - begin);
  return entry;
}

/// Errors unless the tensors (by offset) fill the data part.
void check_contiguous(const std::vector<SafetensorsEntry>& entries, int64_t begin, int64_t end,
                      const std::string& path) {
  int64_t at = begin;
  for (const SafetensorsEntry& entry : entries) {
    check(
        entry.offset >= at, ExitCode::input,
        "{}: tensor \"{}\" overlaps the one before it: it begins at byte {} of the data, that one ends at {}",
        path, entry.name, entry.offset - begin, at - begin);
    check(entry.offset == at, ExitCode::input, "{}: there is a hole of {} bytes before tensor \"{}\"", path,
          entry.offset - at, entry.name);
    at += entry.bytes();
  }
  check(at == end, ExitCode::input, "{}: {} bytes follow the last tensor and belong to none", path, end - at);
}

std::string header_text(const SafetensorsLayout& layout, int64_t header_end,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) {
    Json members = Json::object();
    for (const auto& [key, text] : metadata) members[key] = text;
    header["__metadata__"] = std::move(members);
  }
  for (const SafetensorsEntry& entry : layout.entries) {
    Json shape = Json::array();
    for (int dim = 0; dim < entry.shape.dims(); ++dim) shape.push_back(entry.shape[dim]);
    const int64_t begin = entry.offset - header_end;
    header[entry.name] = {{"dtype", safetensors_name(entry.dtype)},
                          {"shape", std::move(shape)},
                          {"data_offsets", {begin, begin + entry.bytes()}}};
  }
  return header.dump();
}

}  // namespace

std::string_view safetensors_name(DType dtype) {
  for (const DTypeName& known : dtype_names) {
    if (known.dtype == dtype) return known.name;
  }
  fail(ExitCode::defect, "no safetensors dtype for {}", name_of(dtype));
}

std::optional<DType> safetensors_dtype(std::string_view name) {
  for (const DTypeName& known : dtype_names) {
    if (known.name == name) return known.dtype;
  }
  return std::nullopt;
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile result;
  result.file_ = File::open(path);
  const std::string where = path.string();
  const int64_t file_bytes = result.file_.bytes();
  check(file_bytes >= length_bytes + 2, ExitCode::input,
        "{}: {} bytes are too few for a safetensors file: is it truncated?", where, file_bytes);
  uint64_t length = 0;
  result.file_.read_at(0, &length, length_bytes);
  constexpr std::string_view pointer_of_lfs = "version ";  // how such a text begins
  static_assert(pointer_of_lfs.size() == sizeof length);
  check(std::memcmp(&length, pointer_of_lfs.data(), sizeof length) != 0, ExitCode::input,
        "{}: is a pointer of Git LFS, not the file: run `git lfs pull` in its directory", where);
  check(length <= static_cast<uint64_t>(max_header_bytes), ExitCode::input,
        "{}: its header would be {} bytes long, at most {} are accepted: is it a safetensors file?", where,
        length, max_header_bytes);
  check(static_cast<int64_t>(length) <= file_bytes - length_bytes, ExitCode::input,
        "{}: its header would be {} bytes long, but the file has only {} bytes: is it truncated?", where,
        length, file_bytes);
  std::string text(length, '\0');
  result.file_.read_at(length_bytes, text.data(), static_cast<int64_t>(length));
  check(!text.empty() && text[0] == '{', ExitCode::input,
        "{}: its header does not begin with a brace: it is not a safetensors file", where);
  const int64_t header_end = length_bytes + static_cast<int64_t>(length);
  result.header_bytes_ = header_end;
  const Json header = parse_json(text, where + ": header");
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      check(value.is_object(), ExitCode::input, "{}: __metadata__ is {}, expected an object", where,
            kind_of(value));
      for (const auto& [key, member] : value.items()) {
        result.metadata_[key] = json_cast<std::string>(member, key, where + ": __metadata__");
      }
      continue;
    }
    result.entries_.push_back(parse_entry(name, value, header_end, file_bytes, where));
  }
  std::stable_sort(result.entries_.begin(), result.entries_.end(), [](const auto& a, const auto& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes() < b.bytes();
  });
  check_contiguous(result.entries_, header_end, file_bytes, where);
  for (size_t i = 0; i < result.entries_.size(); ++i) result.index_[result.entries_[i].name] = i;
  return result;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

void SafetensorsFile::read_box(std::string_view name, const Box& box, Tensor destination) const {
  const SafetensorsEntry* entry = find(name);
  check(entry != nullptr, ExitCode::input, "{}: there is no tensor \"{}\"", file_.path().string(), name);
  check_inside(whole_of(box), entry->shape, name);
  check(destination.is_contiguous() && destination.numel() == box.numel(), "{}: box {} read to a tensor {}",
        name, to_string(box), to_string(destination.shape));
  const StoredTensor stored = stored_tensor(*entry, "");
  std::vector<char> staging;
  read_common(file_, stored, stored.slices[0], whole_of(box), destination, staging);
}

OwnedTensor SafetensorsFile::read(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  check(entry != nullptr, ExitCode::input, "{}: there is no tensor \"{}\"", file_.path().string(), name);
  OwnedTensor result(entry->shape, entry->dtype);
  read_box(name, whole(entry->shape), result.view);
  return result;
}

StoredTensor stored_tensor(const SafetensorsEntry& entry, std::string file) {
  return {entry.name,
          entry.shape,
          entry.dtype,
          {{std::move(file), entry.offset, Packing::in_tensor, whole_of(entry.shape), {}}}};
}

SafetensorsLayout plan_file(const std::vector<TensorDeclaration>& tensors,
                            const std::map<std::string, std::string>& metadata) {
  SafetensorsLayout layout;
  std::set<std::string_view> names;
  int64_t data_bytes = 0;
  for (const TensorDeclaration& tensor : tensors) {
    check(names.insert(tensor.name).second, "the tensor {} is declared twice in one file", tensor.name);
    layout.entries.push_back({tensor.name, tensor.dtype, tensor.shape, data_bytes});
    data_bytes += layout.entries.back().bytes();
  }
  // Offsets in the header count from the header's end, so its length does not depend on itself.
  std::string text = header_text(layout, 0, metadata);
  text.append((8 - text.size() % 8) % 8, ' ');
  check(static_cast<int64_t>(text.size()) <= max_header_bytes, ExitCode::input,
        "a safetensors header of {} bytes, at most {} are possible: too many tensors in one file",
        text.size(), max_header_bytes);
  const uint64_t length = text.size();
  layout.header.resize(length_bytes);
  std::memcpy(layout.header.data(), &length, length_bytes);
  layout.header += text;
  const auto header_end = static_cast<int64_t>(layout.header.size());
  for (SafetensorsEntry& entry : layout.entries) entry.offset += header_end;
  layout.file_bytes = header_end + data_bytes;
  return layout;
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorDeclaration> declarations;
  for (const auto& [name, tensor] : tensors) declarations.push_back({name, tensor.dtype, tensor.shape});
  const SafetensorsLayout layout = plan_file(declarations, metadata);
  File file = File::create(path, layout.file_bytes);
  file.write_at(0, layout.header.data(), static_cast<int64_t>(layout.header.size()));
  for (size_t i = 0; i < tensors.size(); ++i) {
    check(tensors[i].second.is_contiguous(), "{} is not contiguous", tensors[i].first);
    file.write_at(layout.entries[i].offset, tensors[i].second.data, tensors[i].second.bytes());
  }
  file.close();
}

}  // namespace ptrain
