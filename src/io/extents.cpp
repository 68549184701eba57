#include "src/io/extents.h"

#include <algorithm>
#include <cstring>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "src/io/elements.h"

namespace ptrain {
namespace {

// Reading over a gap is cheaper than a call of its own up to about this size.
constexpr int64_t gap_bytes = int64_t{64} << 10;

int64_t chunk_elements(DType dtype) {
  return chunk_bytes / size_bytes(dtype);
}

/// The elements of a part of the stored slice as one stretch of the file, or nothing where they are strewn.
std::optional<int64_t> stretch_offset(const StoredSlice& stored, const Shape& shape, const Slice& part,
                                      int64_t element_bytes) {
  if (stored.packing == Packing::packed) {
    return stored.offset + (part.range.begin - stored.slice.range.begin) * element_bytes;
  }
  const std::optional<CommonRun> run = CommonRuns(part, whole_of(shape)).next();
  if (!run || run->count != part.numel()) return std::nullopt;
  return stored.offset + run->b * element_bytes;
}

/// Reads elements of a tensor that lie strewn in the file: neighbours in one call, small gaps read along.
void read_strewn(const File& file, int64_t tensor_offset, const Slice& part, const Shape& shape,
                 int64_t element_bytes, char* destination) {
  std::vector<CommonRun> pending;
  std::vector<char> span;
  int64_t begin = 0, end = 0;  // bytes of the file
  const auto flush = [&] {
    if (pending.empty()) return;
    span.resize(static_cast<size_t>(end - begin));
    file.read_at(begin, span.data(), end - begin);
    for (const CommonRun& run : pending) {
      std::memcpy(destination + run.a * element_bytes,
                  span.data() + (tensor_offset + run.b * element_bytes - begin),
                  static_cast<size_t>(run.count * element_bytes));
    }
    pending.clear();
  };
  CommonRuns runs(part, whole_of(shape));
  while (const std::optional<CommonRun> run = runs.next()) {
    const int64_t from = tensor_offset + run->b * element_bytes;
    const int64_t to = from + run->count * element_bytes;
    if (!pending.empty() && (from - end > gap_bytes || to - begin > chunk_bytes)) flush();
    if (pending.empty()) begin = from;
    end = to;
    pending.push_back(*run);
  }
  flush();
}

void read_part(const File& file, const StoredSlice& stored, const Shape& shape, const Slice& part,
               int64_t element_bytes, void* destination) {
  if (const auto offset = stretch_offset(stored, shape, part, element_bytes)) {
    file.read_at(*offset, destination, part.numel() * element_bytes);
  } else {
    read_strewn(file, stored.offset, part, shape, element_bytes, static_cast<char*>(destination));
  }
}

}  // namespace

Slice chunk_of(const Slice& slice, DType dtype, int64_t index) {
  const int64_t begin = index * chunk_elements(dtype);
  const int64_t count = std::min(slice.range.count - begin, chunk_elements(dtype));
  return {slice.box, {slice.range.begin + begin, count}};
}

int64_t num_chunks(const Slice& slice, DType dtype) {
  return (slice.range.count + chunk_elements(dtype) - 1) / chunk_elements(dtype);
}

void write_chunk(const File& file, StoredSlice& stored, const Shape& shape, DType dtype, Tensor source,
                 int64_t index, std::vector<char>& staging) {
  check(source.is_contiguous() && source.numel() == stored.slice.numel(),
        "a slice of {} elements is written from a tensor {}", stored.slice.numel(), to_string(source.shape));
  const int64_t element_bytes = size_bytes(dtype);
  const Slice chunk = chunk_of(stored.slice, dtype, index);
  const int64_t bytes = chunk.numel() * element_bytes;
  const char* from = static_cast<const char*>(source.data) +
                     (chunk.range.begin - stored.slice.range.begin) * size_bytes(source.dtype);
  if (source.dtype != dtype) {
    staging.resize(static_cast<size_t>(chunk_bytes));
    convert_elements(from, source.dtype, staging.data(), dtype, chunk.numel());
    from = staging.data();
  }
  stored.crcs.at(static_cast<size_t>(index)) = crc32c(from, static_cast<size_t>(bytes));
  if (const auto offset = stretch_offset(stored, shape, chunk, element_bytes))
    return file.write_at(*offset, from, bytes);
  CommonRuns runs(chunk, whole_of(shape));
  while (const std::optional<CommonRun> run = runs.next()) {
    file.write_at(stored.offset + run->b * element_bytes, from + run->a * element_bytes,
                  run->count * element_bytes);
  }
}

void write_slice(const File& file, StoredSlice& stored, const Shape& shape, DType dtype, Tensor source,
                 std::vector<char>& staging) {
  const int64_t chunks = num_chunks(stored.slice, dtype);
  stored.crcs.assign(static_cast<size_t>(chunks), 0);
  for (int64_t index = 0; index < chunks; ++index)
    write_chunk(file, stored, shape, dtype, source, index, staging);
}

int64_t read_chunk(const File& file, const StoredTensor& tensor, const StoredSlice& stored, int64_t index,
                   std::vector<char>& bytes) {
  const Slice chunk = chunk_of(stored.slice, tensor.dtype, index);
  const int64_t element_bytes = size_bytes(tensor.dtype);
  bytes.resize(static_cast<size_t>(chunk.numel() * element_bytes));
  read_part(file, stored, tensor.shape, chunk, element_bytes, bytes.data());
  if (!stored.crcs.empty()) {
    const uint32_t expected = stored.crcs.at(static_cast<size_t>(index));
    const uint32_t found = crc32c(bytes.data(), bytes.size());
    check(found == expected, ExitCode::input,
          "{}: {} {} is damaged: its CRC32C is {:08x}, MANIFEST.json says {:08x}", file.path().string(),
          tensor.name, to_string(chunk), found, expected);
  }
  return static_cast<int64_t>(bytes.size());
}

int64_t read_common(const File& file, const StoredTensor& tensor, const StoredSlice& stored,
                    const Slice& wanted, Tensor destination, std::vector<char>& staging) {
  const int64_t element_bytes = size_bytes(tensor.dtype);
  auto* to = static_cast<char*>(destination.data);
  int64_t total = 0;
  // What needs neither a check nor a conversion goes straight to its place.
  const bool is_plain = stored.crcs.empty() && tensor.dtype == destination.dtype;
  if (is_plain) {
    const std::optional<CommonRun> run = CommonRuns(stored.slice, wanted).next();
    if (!run) return 0;
    const Slice part = {stored.slice.box, {stored.slice.range.begin + run->a, run->count}};
    if (run->count == common_elements(stored.slice, wanted)) {
      read_part(file, stored, tensor.shape, part, element_bytes, to + run->b * element_bytes);
      return run->count * element_bytes;
    }
  }
  for (int64_t index = 0; index < num_chunks(stored.slice, tensor.dtype); ++index) {
    const Slice chunk = chunk_of(stored.slice, tensor.dtype, index);
    if (!touch(chunk, wanted)) continue;
    total += read_chunk(file, tensor, stored, index, staging);
    copy_common(chunk, staging.data(), tensor.dtype, wanted, to, destination.dtype);
  }
  return total;
}

}  // namespace ptrain
