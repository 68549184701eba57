#include "src/io/manifest.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/safetensors.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using Kind = Manifest::Kind;

constexpr std::string_view format_name = "ptrain checkpoint 2";
constexpr std::string_view crc_member = ",\n\"crc32c\": \"";
constexpr int64_t max_manifest_bytes = int64_t{1} << 30;
constexpr int64_t max_elements = int64_t{1} << 50;
constexpr std::array kinds = {Kind::weight, Kind::master, Kind::first_moment, Kind::second_moment};

std::string hex(uint32_t crc) {
  return fmt::format("{:08x}", crc);
}

uint32_t from_hex(const std::string& text, const std::string& where) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  // Written back it is the same: capital letters would be a second form of the same number.
  check(error == std::errc() && end == text.data() + text.size() && hex(value) == text, ExitCode::input,
        "{}: {} is not a CRC32C of eight hexadecimal digits", where,
        Json(text).dump(-1, ' ', true, Json::error_handler_t::replace));  // a damaged one is no UTF-8
  return value;
}

/// A name that stays in the checkpoint: one file, or one file of state/.
bool is_inside_name(std::string_view name) {
  if (name.starts_with("state/")) name.remove_prefix(6);
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

int64_t count_of(const Json& value, std::string_view key, const std::string& where) {
  const auto number = json_cast<int64_t>(value, key, where);
  check(number >= 0 && number <= max_elements, ExitCode::input, "{}: \"{}\" is {}: no sensible number", where,
        key, number);
  return number;
}

const Json& array_of(const Json& object, const std::string& key, const std::string& where) {
  const auto it = object.find(key);
  check(it != object.end() && it->is_array(), ExitCode::input, "{}: \"{}\" is missing or no array", where,
        key);
  return *it;
}

Json to_json(const StoredSlice& stored) {
  Json box = Json::array();
  for (int dim = 0; dim < stored.slice.box.extent.dims(); ++dim) {
    const int64_t begin = stored.slice.box.begin[static_cast<size_t>(dim)];
    box.push_back(Json::array({begin, begin + stored.slice.box.extent[dim]}));
  }
  Json crcs = Json::array();
  for (const uint32_t crc : stored.crcs) crcs.push_back(hex(crc));
  return {{"file", stored.file},
          {"offset", stored.offset},
          {"packed", stored.packing == Packing::packed},
          {"box", std::move(box)},
          {"elements", Json::array({stored.slice.range.begin, stored.slice.range.end()})},
          {"crc32c", std::move(crcs)}};
}

Range range_from(const Json& pair, std::string_view key, const std::string& where) {
  check(pair.is_array() && pair.size() == 2, ExitCode::input, "{}: \"{}\" is not a pair of numbers", where,
        key);
  const int64_t begin = count_of(pair[0], key, where), end = count_of(pair[1], key, where);
  check(begin <= end, ExitCode::input, "{}: \"{}\" goes from {} to {}", where, key, begin, end);
  return {begin, end - begin};
}

StoredSlice slice_from(const Json& json, const StoredTensor& tensor, const std::string& where) {
  StoredSlice stored;
  stored.file = required<std::string>(json, "file", where);
  stored.offset = count_of(member(json, "offset", where), "offset", where);
  stored.packing = required<bool>(json, "packed", where) ? Packing::packed : Packing::in_tensor;
  const Json& box = array_of(json, "box", where);
  check(static_cast<int>(box.size()) == tensor.shape.dims(), ExitCode::input,
        "{}: a box of {} dimensions in {}", where, box.size(), to_string(tensor.shape));
  for (int dim = 0; dim < tensor.shape.dims(); ++dim) {
    const Range range = range_from(box[static_cast<size_t>(dim)], "box", where);
    check(range.end() <= tensor.shape[dim], ExitCode::input, "{}: a box that ends at {} of {}", where,
          range.end(), tensor.shape[dim]);
    stored.slice.box.begin[static_cast<size_t>(dim)] = range.begin;
    stored.slice.box.extent.push_back(range.count);
  }
  stored.slice.range = range_from(array_of(json, "elements", where), "elements", where);
  check(stored.slice.range.end() <= stored.slice.box.numel(), ExitCode::input, "{}: elements to {} of {}",
        where, stored.slice.range.end(), stored.slice.box.numel());
  for (const Json& crc : array_of(json, "crc32c", where)) {
    stored.crcs.push_back(from_hex(json_cast<std::string>(crc, "crc32c", where), where));
  }
  check(static_cast<int64_t>(stored.crcs.size()) == num_chunks(stored.slice, tensor.dtype), ExitCode::input,
        "{}: {} CRCs for {} chunks", where, stored.crcs.size(), num_chunks(stored.slice, tensor.dtype));
  return stored;
}

StoredTensor tensor_from(const std::string& name, const Json& json, const std::string& where) {
  StoredTensor tensor;
  tensor.name = name;
  const auto dtype = required<std::string>(json, "dtype", where);
  const std::optional<DType> known = safetensors_dtype(dtype);
  check(known.has_value(), ExitCode::input, "{}: the dtype {} is not known", where, Json(dtype).dump());
  tensor.dtype = *known;
  const Json& shape = array_of(json, "shape", where);
  check(shape.size() <= Shape::max_dims, ExitCode::input, "{}: {} dimensions", where, shape.size());
  int64_t elements = 1;
  for (const Json& value : shape) {
    const int64_t extent = count_of(value, "shape", where);
    check(!__builtin_mul_overflow(elements, std::max<int64_t>(extent, 1), &elements) &&
              elements <= max_elements,
          ExitCode::input, "{}: its shape is no sensible size", where);
    tensor.shape.push_back(extent);
  }
  for (const Json& slice : array_of(json, "slices", where)) {
    tensor.slices.push_back(slice_from(slice, tensor, where));
  }
  return tensor;
}

/// Bytes of the file that the slice may write to: with `in_tensor` all of its tensor, whose slices tile it.
Range held_bytes(const StoredTensor& tensor, const StoredSlice& stored) {
  const int64_t held = stored.packing == Packing::packed ? stored.slice.numel() : tensor.shape.numel();
  return {stored.offset, held * size_bytes(tensor.dtype)};
}

/// What slices hold of each file.
using Held = std::map<std::string_view, std::vector<Range>>;

Held held_of(const StoredTensors& tensors) {
  Held held;
  for (const auto& [kind, list] : tensors) {
    for (const StoredTensor& tensor : list) {
      for (const StoredSlice& stored : tensor.slices) {
        std::vector<Range>& ranges = held[stored.file];
        const Range range = held_bytes(tensor, stored);
        if (ranges.empty() || !(ranges.back() == range)) ranges.push_back(range);
      }
    }
  }
  return held;
}

/// What is left of a file's bytes, ascending.
std::vector<Range> rest_of(const Held& held, std::string_view file, int64_t file_bytes) {
  std::vector<Range> rest, ranges;
  if (const auto it = held.find(file); it != held.end()) ranges = it->second;
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  ranges.push_back({file_bytes, 0});
  int64_t end = 0;
  for (const Range& range : ranges) {
    if (range.begin > end) rest.push_back({end, range.begin - end});
    end = std::max(end, range.end());
  }
  return rest;
}

int64_t count(const std::vector<Range>& ranges) {
  int64_t sum = 0;
  for (const Range& range : ranges) sum += range.count;
  return sum;
}

ManifestFile describe(const fs::path& directory, const std::string& name, const Held& held) {
  const File file = File::open(directory / name);
  ManifestFile result{name, file.bytes(), 0};
  std::vector<char> buffer;
  for (const Range& range : rest_of(held, name, file.bytes())) {
    for (int64_t at = range.begin; at < range.end(); at += chunk_bytes) {
      buffer.resize(static_cast<size_t>(std::min(chunk_bytes, range.end() - at)));
      file.read_at(at, buffer.data(), static_cast<int64_t>(buffer.size()));
      result.rest_crc = crc32c(buffer.data(), buffer.size(), result.rest_crc);
    }
  }
  return result;
}

constexpr int max_parts = 1 << 20;

ManifestPart part_from(const Json& json, const std::string& where) {
  const auto it = json.find("part");
  if (it == json.end()) return {};
  check(it->is_object(), ExitCode::input, "{}: \"part\" is {}, expected an object", where, kind_of(*it));
  const int64_t index = count_of(member(*it, "index", where), "index", where);
  const int64_t of = count_of(member(*it, "of", where), "of", where);
  check(index < of && of <= max_parts, ExitCode::input, "{}: it is part {} of {} parts", where, index, of);
  return {static_cast<int>(index), static_cast<int>(of), required<std::string>(*it, "save", where),
          required<std::string>(*it, "host", where)};
}

/// Errors unless every slice lies inside a file of the manifest.
void check_places(const Manifest& manifest, const std::string& where) {
  std::map<std::string_view, int64_t> bytes_of;
  for (const ManifestFile& file : manifest.files) {
    check(is_inside_name(file.name), ExitCode::input, "{}: the file {} does not lie in the checkpoint", where,
          Json(file.name).dump());
    check(bytes_of.emplace(file.name, file.bytes).second, ExitCode::input, "{}: {} is listed twice", where,
          file.name);
  }
  for (const auto& [kind, tensors] : manifest.tensors) {
    for (const StoredTensor& tensor : tensors) {
      std::vector<Slice> slices;
      for (const StoredSlice& stored : tensor.slices) {
        const auto file = bytes_of.find(stored.file);
        check(file != bytes_of.end() && held_bytes(tensor, stored).end() <= file->second, ExitCode::input,
              "{}: {} {} lies outside of {}", where, tensor.name, to_string(stored.slice), stored.file);
        slices.push_back(stored.slice);
      }
      const bool may_lie_elsewhere = manifest.part.of > 1 && kind != Kind::weight;
      const std::string fault =
          may_lie_elsewhere ? overlap_fault(slices) : tiling_fault(tensor.shape, slices);
      check(fault.empty(), ExitCode::input, "{}: {} of {}: {}", where, name_of(kind), tensor.name, fault);
    }
  }
}

}  // namespace

std::string_view name_of(Manifest::Kind kind) {
  switch (kind) {
    case Kind::weight:
      return "weight";
    case Kind::master:
      return "master";
    case Kind::first_moment:
      return "first_moment";
    case Kind::second_moment:
      return "second_moment";
  }
  return "?";
}

const std::vector<StoredTensor>& Manifest::of(Kind kind) const {
  static const std::vector<StoredTensor> none;
  const auto it = tensors.find(kind);
  return it == tensors.end() ? none : it->second;
}

Json to_json(const StoredTensors& tensors) {
  Json result = Json::object();
  for (const auto& [kind, list] : tensors) {
    Json members = Json::object();
    auto& object = members.get_ref<Json::object_t&>();
    for (const StoredTensor& tensor : list) {
      Json shape = Json::array();
      for (int dim = 0; dim < tensor.shape.dims(); ++dim) shape.push_back(tensor.shape[dim]);
      Json slices = Json::array();
      for (const StoredSlice& stored : tensor.slices) slices.push_back(to_json(stored));
      object.emplace_back(tensor.name, Json{{"dtype", safetensors_name(tensor.dtype)},
                                            {"shape", std::move(shape)},
                                            {"slices", std::move(slices)}});
    }
    result[std::string(name_of(kind))] = std::move(members);
  }
  return result;
}

StoredTensors tensors_from_json(const Json& json, const std::string& where) {
  check(json.is_object(), ExitCode::input, "{}: \"tensors\" is {}, expected an object", where, kind_of(json));
  StoredTensors tensors;
  for (const auto& [key, members] : json.items()) {
    const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](Kind k) { return name_of(k) == key; });
    check(kind != kinds.end() && members.is_object(), ExitCode::input, "{}: tensors of the unknown kind {}",
          where, Json(key).dump());
    for (const auto& [name, tensor] : members.items()) {
      const std::string here = fmt::format("{}: {} of {}", where, key, name);
      check(tensor.is_object(), ExitCode::input, "{}: is {}, expected an object", here, kind_of(tensor));
      tensors[*kind].push_back(tensor_from(name, tensor, here));
    }
  }
  return tensors;
}

std::string to_text(const Manifest& manifest) {
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"rest_crc32c", hex(file.rest_crc)}});
  }
  Json json = {{"format", format_name}, {"step", manifest.step}};
  const ManifestPart& part = manifest.part;
  if (part != ManifestPart()) {
    json["part"] = {{"index", part.index}, {"of", part.of}, {"save", part.save}, {"host", part.host}};
  }
  json["run"] = manifest.run;
  json["files"] = std::move(files);
  json["tensors"] = to_json(manifest.tensors);
  std::string text = json.dump(0);
  check(text.ends_with("\n}"), "the manifest's text has another form than expected");
  text.resize(text.size() - 2);
  const uint32_t crc = crc32c(text.data(), text.size());
  return text + std::string(crc_member) + hex(crc) + "\"\n}\n";
}

bool is_manifest(std::string_view text) {
  return text.starts_with("{\n\"format\": \"ptrain checkpoint ");
}

Manifest parse_manifest(std::string_view text, std::string_view where_text) {
  const std::string where(where_text);
  const size_t end = text.rfind(crc_member);
  check(end != std::string_view::npos, ExitCode::input, "{}: is not whole: its CRC is missing at the end",
        where);
  const std::string_view tail = text.substr(end + crc_member.size());
  check(tail.size() == 12 && tail.ends_with("\"\n}\n"), ExitCode::input,
        "{}: is not whole: its CRC is missing at the end", where);
  const uint32_t expected = from_hex(std::string(tail.substr(0, 8)), where);
  const uint32_t found = crc32c(text.data(), end);
  check(found == expected, ExitCode::input, "{}: is damaged: its CRC32C is {}, its last line says {}", where,
        hex(found), hex(expected));
  const Json json = parse_json(text, where);
  const auto format = required<std::string>(json, "format", where);
  check(format == format_name, ExitCode::input, "{}: its format is {}, expected \"{}\"", where,
        Json(format).dump(), format_name);
  Manifest manifest;
  manifest.step = count_of(member(json, "step", where), "step", where);
  manifest.part = part_from(json, where);
  manifest.run = member(json, "run", where);
  for (const Json& entry : array_of(json, "files", where)) {
    ManifestFile file;
    file.name = required<std::string>(entry, "name", where);
    file.bytes = count_of(member(entry, "bytes", where), "bytes", where);
    file.rest_crc = from_hex(required<std::string>(entry, "rest_crc32c", where), where);
    manifest.files.push_back(std::move(file));
  }
  manifest.tensors = tensors_from_json(member(json, "tensors", where), where);
  check_places(manifest, where);
  return manifest;
}

Manifest open_manifest(const fs::path& checkpoint) {
  const fs::path path = checkpoint / manifest_name;
  Manifest manifest = parse_manifest(read_text(path, max_manifest_bytes), path.string());
  const Held held = held_of(manifest.tensors);
  for (const ManifestFile& file : manifest.files) {
    const File open = File::open(checkpoint / file.name);
    check(open.bytes() == file.bytes, ExitCode::input, "{}: has {} bytes, {} says {}", open.path().string(),
          open.bytes(), manifest_name, file.bytes);
    const ManifestFile found = describe(checkpoint, file.name, held);
    check(found.rest_crc == file.rest_crc, ExitCode::input,
          "{}: is damaged outside of its tensors: the CRC32C there is {}, {} says {}", open.path().string(),
          hex(found.rest_crc), manifest_name, hex(file.rest_crc));
  }
  return manifest;
}

ManifestFile describe_file(const fs::path& directory, const std::string& name, const StoredTensors& tensors) {
  return describe(directory, name, held_of(tensors));
}

int64_t verify_checkpoint(const fs::path& checkpoint, const Manifest& manifest,
                          const std::function<void(const std::string&)>& fault) {
  int64_t total = 0;
  std::map<std::string, File> files;
  std::vector<char> staging;
  const Held held = held_of(manifest.tensors);
  for (const ManifestFile& file : manifest.files) {  // checked by open_manifest
    total += count(rest_of(held, file.name, file.bytes));
  }
  for (const auto& [kind, tensors] : manifest.tensors) {
    for (const StoredTensor& tensor : tensors) {
      for (const StoredSlice& stored : tensor.slices) {
        for (int64_t chunk = 0; chunk < num_chunks(stored.slice, tensor.dtype); ++chunk) {
          try {
            File& file = files[stored.file];
            if (!file) file = File::open(checkpoint / stored.file);
            total += read_chunk(file, tensor, stored, chunk, staging);
          } catch (const Error& error) {
            fault(error.what());
          }
        }
      }
    }
  }
  return total;
}

}  // namespace ptrain
