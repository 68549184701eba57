#include "src/convert/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include "kernels/base/error.h"
#include "src/convert/utf8.h"
#include "src/io/elements.h"

namespace ptrain {
namespace {

static_assert(std::endian::native == std::endian::little, "the file's numbers are little-endian");

constexpr int64_t max_header_bytes = int64_t{1} << 30;
constexpr int64_t max_string_bytes = int64_t{16} << 20;
constexpr int64_t max_extent = int64_t{1} << 40;
constexpr int64_t max_alignment = int64_t{1} << 20;

constexpr std::array types = std::to_array<GgufType>({
    {0, "F32", 1, 4, true},          {1, "F16", 1, 2, true},          {2, "Q4_0", 32, 18, true},
    {3, "Q4_1", 32, 20, true},       {6, "Q5_0", 32, 22, false},      {7, "Q5_1", 32, 24, false},
    {8, "Q8_0", 32, 34, true},       {9, "Q8_1", 32, 36, false},      {10, "Q2_K", 256, 84, false},
    {11, "Q3_K", 256, 110, false},   {12, "Q4_K", 256, 144, false},   {13, "Q5_K", 256, 176, false},
    {14, "Q6_K", 256, 210, false},   {15, "Q8_K", 256, 292, false},   {16, "IQ2_XXS", 256, 66, false},
    {17, "IQ2_XS", 256, 74, false},  {18, "IQ3_XXS", 256, 98, false}, {19, "IQ1_S", 256, 50, false},
    {20, "IQ4_NL", 32, 18, false},   {21, "IQ3_S", 256, 110, false},  {22, "IQ2_S", 256, 82, false},
    {23, "IQ4_XS", 256, 136, false}, {24, "I8", 1, 1, false},         {25, "I16", 1, 2, false},
    {26, "I32", 1, 4, false},        {27, "I64", 1, 8, false},        {28, "F64", 1, 8, false},
    {29, "IQ1_M", 256, 56, false},   {30, "BF16", 1, 2, true},        {34, "TQ1_0", 256, 54, false},
    {35, "TQ2_0", 256, 66, false},   {39, "MXFP4", 32, 17, false},
});

/// Numbers of the file's value types.
enum class Kind : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
constexpr uint32_t num_kinds = 13;
constexpr std::array<int64_t, num_kinds> least_bytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

/// Reads the file from the front, never beyond its end.
class Reader {
 public:
  explicit Reader(const File& file) : file_(file), where_(file.path().string()) {}

  template <class T>
  T take() {
    T value;
    take_bytes(&value, sizeof value);
    return value;
  }

  std::string text(std::string_view what) {
    const auto bytes = take<uint64_t>();
    check(bytes <= static_cast<uint64_t>(std::min(left(), max_string_bytes)), ExitCode::input,
          "{}: {} would be {} bytes long, with {} bytes of the file left: is it truncated?", where_, what,
          bytes, left());
    std::string result(bytes, '\0');
    take_bytes(result.data(), static_cast<int64_t>(bytes));
    check(is_utf8(result), ExitCode::input, "{}: {} is not UTF-8", where_, what);
    return result;
  }

  /// A number of things of at least `least` bytes each, which therefore fit into the rest of the file.
  int64_t count(std::string_view what, int64_t least) {
    const auto count = take<uint64_t>();
    check(count <= static_cast<uint64_t>(left() / least), ExitCode::input,
          "{}: says that it holds {} {}, but only {} bytes are left: is it truncated?", where_, count, what,
          left());
    return static_cast<int64_t>(count);
  }

  GgufValue value(const std::string& key) {
    const auto kind = take<uint32_t>();
    check(kind < num_kinds, ExitCode::input, "{}: {} has the unknown value type {}", where_, key, kind);
    if (static_cast<Kind>(kind) == Kind::array) return array(key);
    return scalar(static_cast<Kind>(kind), key);
  }

  int64_t position() const { return buffer_begin_ + at_; }
  const std::string& where() const { return where_; }

 private:
  int64_t left() const { return std::min(file_.bytes(), max_header_bytes) - position(); }

  void take_bytes(void* out, int64_t bytes) {
    check(bytes <= left(), ExitCode::input, "{}: ends inside its header at byte {}: is it truncated?", where_,
          file_.bytes());
    auto* to = static_cast<char*>(out);
    while (bytes > 0) {
      if (at_ == static_cast<int64_t>(buffer_.size())) {
        buffer_begin_ += at_;
        at_ = 0;
        buffer_.resize(static_cast<size_t>(std::min<int64_t>(1 << 20, file_.bytes() - buffer_begin_)));
        file_.read_at(buffer_begin_, buffer_.data(), static_cast<int64_t>(buffer_.size()));
      }
      const int64_t part = std::min(bytes, static_cast<int64_t>(buffer_.size()) - at_);
      std::memcpy(to, buffer_.data() + at_, static_cast<size_t>(part));
      to += part;
      at_ += part;
      bytes -= part;
    }
  }

  int64_t integer(Kind kind, const std::string& key) {
    switch (kind) {
      case Kind::u8:
        return take<uint8_t>();
      case Kind::i8:
        return take<int8_t>();
      case Kind::u16:
        return take<uint16_t>();
      case Kind::i16:
        return take<int16_t>();
      case Kind::u32:
        return take<uint32_t>();
      case Kind::i32:
        return take<int32_t>();
      default:
        break;
    }
    const auto value = take<int64_t>();
    check(kind == Kind::i64 || value >= 0, ExitCode::input, "{}: {} is {}, more than fits a number here",
          where_, key, static_cast<uint64_t>(value));
    return value;
  }

  double number(Kind kind) { return kind == Kind::f32 ? take<float>() : take<double>(); }

  bool truth(const std::string& key) {
    const auto value = take<uint8_t>();
    check(value <= 1, ExitCode::input, "{}: {} is {}, expected 0 or 1", where_, key, value);
    return value == 1;
  }

  GgufValue scalar(Kind kind, const std::string& key) {
    if (kind == Kind::string) return text(key);
    if (kind == Kind::boolean) return truth(key);
    if (kind == Kind::f32 || kind == Kind::f64) return number(kind);
    return integer(kind, key);
  }

  GgufValue array(const std::string& key) {
    const auto number_of_kind = take<uint32_t>();
    check(number_of_kind < num_kinds, ExitCode::input, "{}: {} is an array of the unknown value type {}",
          where_, key, number_of_kind);
    const auto kind = static_cast<Kind>(number_of_kind);
    check(kind != Kind::array, ExitCode::input, "{}: {} is an array of arrays, which is not supported",
          where_, key);
    const int64_t size = count(key + " elements", least_bytes[number_of_kind]);
    const auto fill = [&](auto vector, auto next) {
      vector.reserve(static_cast<size_t>(size));
      for (int64_t i = 0; i < size; ++i) vector.push_back(next());
      return GgufValue(std::move(vector));
    };
    if (kind == Kind::string) return fill(std::vector<std::string>(), [&] { return text(key); });
    if (kind == Kind::f32 || kind == Kind::f64)
      return fill(std::vector<double>(), [&] { return number(kind); });
    if (kind == Kind::boolean) return fill(std::vector<int64_t>(), [&] { return int64_t{truth(key)}; });
    return fill(std::vector<int64_t>(), [&] { return integer(kind, key); });
  }

  const File& file_;
  std::string where_;
  std::vector<char> buffer_;
  int64_t buffer_begin_ = 0;
  int64_t at_ = 0;
};

GgufTensor read_tensor_info(Reader& reader) {
  GgufTensor tensor;
  tensor.name = reader.text("a tensor's name");
  const std::string where = fmt::format("{}: tensor \"{}\"", reader.where(), tensor.name);
  const auto dims = reader.take<uint32_t>();
  check(dims >= 1 && dims <= Shape::max_dims, ExitCode::input, "{} has {} dimensions, expected 1 to {}",
        where, dims, int{Shape::max_dims});
  std::array<int64_t, Shape::max_dims> extents{};
  int64_t elements = 1;
  for (uint32_t dim = 0; dim < dims; ++dim) {
    const auto extent = reader.take<uint64_t>();
    check(extent >= 1 && extent <= static_cast<uint64_t>(max_extent) &&
              !__builtin_mul_overflow(elements, static_cast<int64_t>(extent), &elements) &&
              elements <= max_extent,
          ExitCode::input, "{}: dimension {} is {}: no sensible size", where, dim, extent);
    extents[dim] = static_cast<int64_t>(extent);
  }
  for (uint32_t dim = dims; dim > 0; --dim) tensor.shape.push_back(extents[dim - 1]);
  const auto type = reader.take<uint32_t>();
  tensor.type = gguf_type(type);
  check(tensor.type != nullptr, ExitCode::input, "{} has the unknown type number {}", where, type);
  check(extents[0] % tensor.type->block_elements == 0, ExitCode::input,
        "{}: {} packs {} elements in a block, but a row has {}", where, tensor.type->name,
        tensor.type->block_elements, extents[0]);
  const auto offset = reader.take<uint64_t>();
  check(offset <= static_cast<uint64_t>(INT64_MAX / 2), ExitCode::input,
        "{}: its offset {} lies outside of the file", where, offset);
  tensor.offset = static_cast<int64_t>(offset);
  return tensor;
}

float half_at(const char* bytes) {
  float value = 0;
  convert_elements(bytes, DType::f16, &value, DType::f32, 1);
  return value;
}

}  // namespace

const GgufType* gguf_type(uint32_t id) {
  for (const GgufType& type : types) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile result;
  result.file_ = File::open(path);
  Reader reader(result.file_);
  const std::string where = path.string();
  check(result.file_.bytes() >= 24, ExitCode::input,
        "{}: {} bytes are too few for a GGUF file: is it truncated?", where, result.file_.bytes());
  check(reader.take<std::array<char, 4>>() == std::array{'G', 'G', 'U', 'F'}, ExitCode::input,
        "{}: does not begin with GGUF: it is not a GGUF file", where);
  result.version_ = reader.take<uint32_t>();
  check(result.version_ == 2 || result.version_ == 3, ExitCode::input,
        "{}: is GGUF version {}, versions 2 and 3 are supported", where, result.version_);
  const int64_t num_tensors = reader.count("tensors", 8 + 4 + 8 + 4 + 8);
  const int64_t num_keys = reader.count("metadata keys", 8 + 4 + 1);
  for (int64_t i = 0; i < num_keys; ++i) {
    std::string key = reader.text("a metadata key");
    GgufValue value = reader.value(key);
    check(result.metadata_.emplace(key, std::move(value)).second, ExitCode::input,
          "{}: the metadata key \"{}\" appears twice", where, key);
  }
  for (int64_t i = 0; i < num_tensors; ++i) {
    result.tensors_.push_back(read_tensor_info(reader));
    const std::string& name = result.tensors_.back().name;
    check(result.index_.emplace(name, static_cast<size_t>(i)).second, ExitCode::input,
          "{}: the tensor \"{}\" appears twice", where, name);
  }
  result.check_tensors(reader.position());
  return result;
}

/// Offsets become those of the file; errors where a tensor does not lie inside the file or overlaps another.
void GgufFile::check_tensors(int64_t header_end) {
  const std::string where = path().string();
  const int64_t alignment = get<int64_t>("general.alignment").value_or(32);
  check(alignment >= 1 && alignment <= max_alignment && std::has_single_bit(static_cast<uint64_t>(alignment)),
        ExitCode::input, "{}: general.alignment is {}, expected a power of two", where, alignment);
  const int64_t begin = (header_end + alignment - 1) / alignment * alignment;
  const int64_t data_bytes = std::max<int64_t>(0, file_.bytes() - begin);
  std::vector<const GgufTensor*> by_offset;
  for (GgufTensor& tensor : tensors_) {
    check(tensor.offset % alignment == 0, ExitCode::input,
          "{}: tensor \"{}\" begins at {}, which is no multiple of the alignment {}", where, tensor.name,
          tensor.offset, alignment);
    check(tensor.offset <= data_bytes && tensor.bytes() <= data_bytes - tensor.offset, ExitCode::input,
          "{}: tensor \"{}\" takes bytes {} to {} of the data, but the file holds {}: is it truncated?",
          where, tensor.name, tensor.offset, tensor.offset + tensor.bytes(), data_bytes);
    tensor.offset += begin;
    by_offset.push_back(&tensor);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    check(by_offset[i - 1]->offset + by_offset[i - 1]->bytes() <= by_offset[i]->offset, ExitCode::input,
          "{}: the tensors \"{}\" and \"{}\" overlap", where, by_offset[i - 1]->name, by_offset[i]->name);
  }
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

template <class T>
std::optional<T> GgufFile::get(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return std::nullopt;
  if (const T* value = std::get_if<T>(&it->second)) return *value;
  if constexpr (std::is_same_v<T, double>) {
    if (const auto* value = std::get_if<int64_t>(&it->second)) return static_cast<double>(*value);
  }
  constexpr std::string_view expected = std::is_same_v<T, int64_t>       ? "an integer"
                                        : std::is_same_v<T, double>      ? "a number"
                                        : std::is_same_v<T, bool>        ? "true or false"
                                        : std::is_same_v<T, std::string> ? "a text"
                                                                         : "an array of another type";
  fail(ExitCode::input, "{}: {} is {}, expected {}", path().string(), key, to_string(it->second), expected);
}

template <class T>
T GgufFile::required(std::string_view key) const {
  std::optional<T> value = get<T>(key);
  check(value.has_value(), ExitCode::input, "{}: the metadata key \"{}\" is missing", path().string(), key);
  return std::move(*value);
}

template std::optional<int64_t> GgufFile::get(std::string_view) const;
template int64_t GgufFile::required(std::string_view) const;
template std::optional<double> GgufFile::get(std::string_view) const;
template double GgufFile::required(std::string_view) const;
template std::optional<bool> GgufFile::get(std::string_view) const;
template bool GgufFile::required(std::string_view) const;
template std::optional<std::string> GgufFile::get(std::string_view) const;
template std::string GgufFile::required(std::string_view) const;
template std::optional<std::vector<int64_t>> GgufFile::get(std::string_view) const;
template std::vector<int64_t> GgufFile::required(std::string_view) const;
template std::optional<std::vector<double>> GgufFile::get(std::string_view) const;
template std::vector<double> GgufFile::required(std::string_view) const;
template std::optional<std::vector<std::string>> GgufFile::get(std::string_view) const;
template std::vector<std::string> GgufFile::required(std::string_view) const;

void GgufFile::read_rows(const GgufTensor& tensor, int64_t first, int64_t count, float* out,
                         std::vector<char>& staging) const {
  check(tensor.type->is_readable, ExitCode::input,
        "{}: tensor \"{}\" is {}, which is not supported: F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are",
        path().string(), tensor.name, tensor.type->name);
  check(first >= 0 && count >= 0 && first + count <= tensor.shape.rows(), "rows {} to {} of {}", first,
        first + count, to_string(tensor.shape));
  const int64_t row_blocks = tensor.shape.columns() / tensor.type->block_elements;
  const int64_t bytes = count * row_blocks * tensor.type->block_bytes;
  staging.resize(static_cast<size_t>(bytes));
  file_.read_at(tensor.offset + first * row_blocks * tensor.type->block_bytes, staging.data(), bytes);
  dequantise(*tensor.type, staging.data(), count * row_blocks, out);
}

std::string to_string(const GgufValue& value) {
  struct Visitor {
    std::string operator()(int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return fmt::format("{}", number); }
    std::string operator()(bool truth) const { return truth ? "true" : "false"; }
    std::string operator()(const std::string& text) const { return text; }
    std::string operator()(const std::vector<int64_t>& v) const {
      return fmt::format("[{} integers]", v.size());
    }
    std::string operator()(const std::vector<double>& v) const {
      return fmt::format("[{} numbers]", v.size());
    }
    std::string operator()(const std::vector<std::string>& v) const {
      return fmt::format("[{} texts]", v.size());
    }
  };
  return std::visit(Visitor{}, value);
}

void dequantise(const GgufType& type, const char* blocks, int64_t num_blocks, float* out) {
  if (type.name == "F32") return convert_elements(blocks, DType::f32, out, DType::f32, num_blocks);
  if (type.name == "F16") return convert_elements(blocks, DType::f16, out, DType::f32, num_blocks);
  if (type.name == "BF16") return convert_elements(blocks, DType::bf16, out, DType::f32, num_blocks);
  const bool has_minimum = type.name == "Q4_1";
  const bool is_q8 = type.name == "Q8_0";
  check(has_minimum || is_q8 || type.name == "Q4_0", "no de-quantisation of {}", type.name);
  for (int64_t block = 0; block < num_blocks;
       ++block, blocks += type.block_bytes, out += type.block_elements) {
    const float scale = half_at(blocks);
    if (is_q8) {
      const auto* q = reinterpret_cast<const int8_t*>(blocks + 2);
      for (int i = 0; i < 32; ++i) out[i] = scale * static_cast<float>(q[i]);
      continue;
    }
    // Elements 0 to 15 are the low nibbles, 16 to 31 the high ones. The products are exact in f32.
    const int zero = has_minimum ? 0 : 8;
    const auto* q = reinterpret_cast<const uint8_t*>(blocks + (has_minimum ? 4 : 2));
    for (int i = 0; i < 16; ++i) {
      out[i] = scale * static_cast<float>((q[i] & 15) - zero);
      out[i + 16] = scale * static_cast<float>((q[i] >> 4) - zero);
    }
    if (!has_minimum) continue;
    const float minimum = half_at(blocks + 2);
    for (int i = 0; i < 32; ++i) out[i] += minimum;
  }
}

}  // namespace ptrain
