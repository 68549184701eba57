// The door to HDF5: files whose datasets have a fixed place, so that their bytes are written and read like
// any other extent of a file, with our own return codes and checksums. HDF5 itself only keeps names, types,
// shapes and attributes. Not for chunked, compressed or virtual datasets, which are refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/dtype.h"
#include "kernels/base/shape.h"

namespace ptrain {

/// A contiguous, little-endian dataset and where its bytes lie in the file.
struct Hdf5Dataset {
  std::string name;  // from the root, without a leading slash: "moments/first/lm_head.weight"
  DType dtype = DType::f32;
  Shape shape;
  int64_t offset = 0;  // bytes from the beginning of the file; 0 where the dataset is empty

  int64_t bytes() const { return shape.numel() * size_bytes(dtype); }
};

/// Lays a new file out. Afterwards the bytes of its datasets are whatever the disk gave (zeros as a rule):
/// the caller writes them at their offsets, after close().
///
///   Hdf5Writer writer("state.h5.tmp");
///   writer.set("step", 500);
///   const Hdf5Dataset first = writer.add("first", DType::f32, {4096, 4096});
///   writer.close();
///   File::open_for_writing("state.h5.tmp").write_at(first.offset, data, first.bytes());
class Hdf5Writer {
 public:
  /// In the place of an older file. Errors, here and below: ExitCode::resources with path and HDF5's reason.
  explicit Hdf5Writer(const std::filesystem::path& path);
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;
  ~Hdf5Writer();  // without close() the file is not usable

  /// Attributes of the file as a whole.
  void set(std::string_view attribute, int64_t value);
  void set(std::string_view attribute, std::string_view value);
  /// Takes room for a dataset. dtype: f64 f32 i64 i32 i16 i8 u8.
  Hdf5Dataset add(std::string_view name, DType dtype, const Shape& shape);
  /// Writes what HDF5 still holds. The file then has its full length.
  void close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads what a file says of itself. The file may be a stranger's: nothing is believed that does not fit into
/// the file, and links out of the file are not followed.
class Hdf5Reader {
 public:
  /// Errors, here and below: ExitCode::input with the path, what is wrong with it, and HDF5's reason.
  explicit Hdf5Reader(const std::filesystem::path& path);
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;
  ~Hdf5Reader();

  bool has_attribute(std::string_view attribute) const;
  int64_t integer(std::string_view attribute) const;
  std::string text(std::string_view attribute) const;  // at most 64 KiB

  bool has_dataset(std::string_view name) const;
  /// Refused: not contiguous, of another type, more than four dimensions, outside the file.
  Hdf5Dataset dataset(std::string_view name) const;
  /// Names of all datasets, sorted; at most a million.
  std::vector<std::string> datasets() const;
  /// Elements [begin, begin + count) of a dataset of one dimension, into `out`, through HDF5.
  void read(const Hdf5Dataset& dataset, int64_t begin, int64_t count, void* out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ptrain
