// Slices of tensors in files: where their bytes lie, and writing and reading them in chunks of at most 4 MiB
// with a CRC32C each. Knows no file format: safetensors, HDF5 and GGUF only say at which offset a tensor's
// bytes begin.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/tensor.h"
#include "src/io/boxes.h"
#include "src/io/file.h"

namespace ptrain {

/// How a slice's elements lie in its file. `in_tensor`: at their places inside the whole row-major tensor,
/// which begins at the offset. `packed`: one after another from the offset on.
enum class Packing { in_tensor, packed };

/// Where a slice of a tensor is kept.
struct StoredSlice {
  std::string file;    // relative to the directory
  int64_t offset = 0;  // bytes, see Packing
  Packing packing = Packing::packed;
  Slice slice;
  std::vector<uint32_t> crcs;  // CRC32C of each chunk's bytes in row-major order; empty = not known
};

/// A tensor and all slices of it that files hold.
struct StoredTensor {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;
  std::vector<StoredSlice> slices;
};

inline constexpr int64_t chunk_bytes = int64_t{4} << 20;

/// Chunk `index` of a slice: its elements from index * (4 MiB / element size) on, 4 MiB at most.
Slice chunk_of(const Slice& slice, DType dtype, int64_t index);
int64_t num_chunks(const Slice& slice, DType dtype);

/// Writes chunk `index` of a slice and notes its CRC in stored.crcs, which has room for all of them; see
/// write_slice.
void write_chunk(const File& file, StoredSlice& stored, const Shape& shape, DType dtype, Tensor source,
                 int64_t index, std::vector<char>& staging);

/// Writes a slice of a tensor and notes the CRCs in it. `source` holds the slice's elements one after another
/// and is converted to `dtype` where its own differs. `staging` is scratch that grows to 4 MiB once. Errors:
/// ExitCode::resources.
void write_slice(const File& file, StoredSlice& stored, const Shape& shape, DType dtype, Tensor source,
                 std::vector<char>& staging);

/// Reads chunk `index` of a stored slice to `bytes`, as it lies in the file, and checks its CRC where there
/// is one. Returns the size of the chunk. Errors: ExitCode::input, naming file, tensor and part.
int64_t read_chunk(const File& file, const StoredTensor& tensor, const StoredSlice& stored, int64_t index,
                   std::vector<char>& bytes);

/// Reads what `wanted` shares with a stored slice into `destination`, which holds the elements of `wanted`
/// one after another and may have another float dtype. Reads every chunk that it touches as a whole, or only
/// the shared bytes where these are one stretch that needs neither a check nor a conversion. Returns the
/// bytes read.
int64_t read_common(const File& file, const StoredTensor& tensor, const StoredSlice& stored,
                    const Slice& wanted, Tensor destination, std::vector<char>& staging);

}  // namespace ptrain
