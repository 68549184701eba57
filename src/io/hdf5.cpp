#include "src/io/hdf5.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/base/error.h"
#include "src/io/file.h"

namespace ptrain {
namespace {

constexpr size_t max_text_bytes = size_t{64} << 10;
constexpr size_t max_datasets = 1'000'000;
constexpr hsize_t alignment_bytes = 4096;  // of datasets of that size and more: pages are not shared

/// An HDF5 id; gives it back.
class Id {
 public:
  Id() = default;
  explicit Id(hid_t id) : id_(id) {}
  Id(Id&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Id& operator=(Id&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Id() {
    if (id_ >= 0) H5Idec_ref(id_);
  }
  hid_t get() const { return id_; }
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

/// HDF5's own words for what went wrong last on this thread, the innermost cause first.
std::string reason() {
  std::string text;
  const auto take = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    auto& words = *static_cast<std::string*>(out);
    if (words.empty() && error->desc != nullptr) words = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take, &text);
  std::replace(text.begin(), text.end(), '\n', ' ');  // it breaks lines after the time
  return text.empty() ? "HDF5 gives no reason" : text;
}

/// One open file: the checks with its path and the right exit code in them.
struct Hdf5File {
  std::filesystem::path path;
  ExitCode code;
  int64_t file_bytes = 0;
  Id id;

  void ok(bool is_ok, std::string_view what) const {
    if (!is_ok) [[unlikely]] {
      fail(code, "{}: {}: {}", path.string(), what, reason());
    }
  }
  Id made(hid_t made, std::string_view what) const {
    ok(made >= 0, what);
    return Id(made);
  }
};

/// Before any other call. Keeps HDF5 from printing to stderr; the setting belongs to the thread. And from its
/// own work at the process's end: a file that could not be written, and so not be closed, is written again
/// there, which crashes.
void be_quiet() {
  [[maybe_unused]] static const herr_t no_end = H5dont_atexit();
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

constexpr std::array stored_dtypes = {DType::f64, DType::f32, DType::i64, DType::i32,
                                      DType::i16, DType::i8,  DType::u8};

hid_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return H5T_IEEE_F64LE;
    case DType::f32:
      return H5T_IEEE_F32LE;
    case DType::i64:
      return H5T_STD_I64LE;
    case DType::i32:
      return H5T_STD_I32LE;
    case DType::i16:
      return H5T_STD_I16LE;
    case DType::i8:
      return H5T_STD_I8LE;
    case DType::u8:
      return H5T_STD_U8LE;
    default:
      fail(ExitCode::defect, "HDF5 files hold no {}", name_of(dtype));
  }
}

/// Locks are ours (the run's lock file); some file systems refuse HDF5's.
void no_locks(const Hdf5File& file, const Id& access) {
  file.ok(H5Pset_file_locking(access.get(), false, true) >= 0, "cannot be opened");
}

}  // namespace

// ---- writing ----

struct Hdf5Writer::State {
  Hdf5File file;

  Id attribute(std::string_view name, const Id& type) const {
    const Id space = file.made(H5Screate(H5S_SCALAR), "an attribute cannot be written");
    return file.made(H5Acreate2(file.id.get(), std::string(name).c_str(), type.get(), space.get(),
                                H5P_DEFAULT, H5P_DEFAULT),
                     "an attribute cannot be written");
  }
};

Hdf5Writer::Hdf5Writer(const std::filesystem::path& path)
    : state_(std::make_unique<State>(State{{path, ExitCode::resources, 0, Id()}})) {
  be_quiet();
  Hdf5File& file = state_->file;
  // The format of HDF5 1.8 holds a checksum of every piece of its own structure.
  const Id access = file.made(H5Pcreate(H5P_FILE_ACCESS), "cannot be created");
  file.ok(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0, "cannot be created");
  file.ok(H5Pset_alignment(access.get(), alignment_bytes, alignment_bytes) >= 0, "cannot be created");
  no_locks(file, access);
  const Id create = file.made(H5Pcreate(H5P_FILE_CREATE), "cannot be created");
  file.ok(H5Pset_obj_track_times(create.get(), false) >= 0, "cannot be created");  // the same bytes each time
  ::close(open_output(path, O_RDWR));  // refuses a link, which HDF5 would follow
  file.id =
      file.made(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, create.get(), access.get()), "cannot be created");
}

Hdf5Writer::~Hdf5Writer() = default;

void Hdf5Writer::set(std::string_view attribute, int64_t value) {
  be_quiet();
  const Id type = state_->file.made(H5Tcopy(H5T_STD_I64LE), "an attribute cannot be written");
  const Id id = state_->attribute(attribute, type);
  state_->file.ok(H5Awrite(id.get(), H5T_NATIVE_INT64, &value) >= 0, "an attribute cannot be written");
}

void Hdf5Writer::set(std::string_view attribute, std::string_view value) {
  be_quiet();
  check(value.size() < max_text_bytes, "attribute {} has {} bytes", attribute, value.size());
  const std::string text(value);
  const Id type = state_->file.made(H5Tcopy(H5T_C_S1), "an attribute cannot be written");
  state_->file.ok(H5Tset_size(type.get(), text.size() + 1) >= 0, "an attribute cannot be written");
  state_->file.ok(H5Tset_cset(type.get(), H5T_CSET_UTF8) >= 0, "an attribute cannot be written");
  const Id id = state_->attribute(attribute, type);
  state_->file.ok(H5Awrite(id.get(), type.get(), text.c_str()) >= 0, "an attribute cannot be written");
}

Hdf5Dataset Hdf5Writer::add(std::string_view name, DType dtype, const Shape& shape) {
  be_quiet();
  const Hdf5File& file = state_->file;
  const std::string what =
      fmt::format("no room for dataset {} of {} {}", name, to_string(shape), name_of(dtype));
  std::array<hsize_t, Shape::max_dims> extents{};
  for (int dim = 0; dim < shape.dims(); ++dim) {
    extents[static_cast<size_t>(dim)] = static_cast<hsize_t>(shape[dim]);
  }
  const Id space = file.made(H5Screate_simple(shape.dims(), extents.data(), nullptr), what);
  const Id links = file.made(H5Pcreate(H5P_LINK_CREATE), what);
  file.ok(H5Pset_create_intermediate_group(links.get(), 1) >= 0, what);
  const Id layout = file.made(H5Pcreate(H5P_DATASET_CREATE), what);
  file.ok(H5Pset_layout(layout.get(), H5D_CONTIGUOUS) >= 0, what);
  file.ok(H5Pset_alloc_time(layout.get(), H5D_ALLOC_TIME_EARLY) >= 0, what);
  file.ok(H5Pset_fill_time(layout.get(), H5D_FILL_TIME_NEVER) >= 0, what);
  file.ok(H5Pset_obj_track_times(layout.get(), false) >= 0, what);
  Hdf5Dataset dataset{std::string(name), dtype, shape, 0};
  const Id id = file.made(H5Dcreate2(file.id.get(), dataset.name.c_str(), type_of(dtype), space.get(),
                                     links.get(), layout.get(), H5P_DEFAULT),
                          what);
  if (dataset.bytes() == 0) return dataset;
  const haddr_t offset = H5Dget_offset(id.get());
  file.ok(offset != HADDR_UNDEF, what);
  dataset.offset = static_cast<int64_t>(offset);
  return dataset;
}

void Hdf5Writer::close() {
  be_quiet();
  const Hdf5File& file = state_->file;
  file.ok(H5Fflush(file.id.get(), H5F_SCOPE_GLOBAL) >= 0, "cannot be written");
  file.ok(H5Fclose(state_->file.id.release()) >= 0, "cannot be closed");
}

// ---- reading ----

struct Hdf5Reader::State {
  Hdf5File file;

  /// True if every link on the way to `name` exists and stays inside this file.
  bool is_inside(const std::string& name) const {
    for (size_t end = 0; end != std::string::npos;) {
      end = name.find('/', end + 1);
      const std::string prefix = name.substr(0, end);
      if (H5Lexists(file.id.get(), prefix.c_str(), H5P_DEFAULT) <= 0) return false;
      H5L_info_t info;
      file.ok(H5Lget_info(file.id.get(), prefix.c_str(), &info, H5P_DEFAULT) >= 0, "a link cannot be read");
      check(info.type == H5L_TYPE_HARD, ExitCode::input, "{}: {} is a link to somewhere else",
            file.path.string(), prefix);
    }
    return true;
  }

  Id attribute(std::string_view name, H5T_class_t wanted, std::string_view kind) const {
    const std::string key(name);
    check(H5Aexists(file.id.get(), key.c_str()) > 0, ExitCode::input, "{}: attribute {} is missing",
          file.path.string(), name);
    Id id = file.made(H5Aopen(file.id.get(), key.c_str(), H5P_DEFAULT), "an attribute cannot be read");
    const Id space = file.made(H5Aget_space(id.get()), "an attribute cannot be read");
    const Id type = file.made(H5Aget_type(id.get()), "an attribute cannot be read");
    check(H5Sget_simple_extent_npoints(space.get()) == 1 && H5Tget_class(type.get()) == wanted,
          ExitCode::input, "{}: attribute {} is not {}", file.path.string(), name, kind);
    return id;
  }
};

Hdf5Reader::Hdf5Reader(const std::filesystem::path& path)
    : state_(std::make_unique<State>(State{{path, ExitCode::input, 0, Id()}})) {
  be_quiet();
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check(std::filesystem::exists(status), ExitCode::input, "{}: no such file", path.string());
  check(std::filesystem::is_regular_file(status), ExitCode::input, "{}: not a regular file", path.string());
  Hdf5File& file = state_->file;
  file.file_bytes = static_cast<int64_t>(std::filesystem::file_size(path, error));
  const Id access = file.made(H5Pcreate(H5P_FILE_ACCESS), "cannot be opened");
  no_locks(file, access);
  file.id = file.made(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "not a whole HDF5 file");
}

Hdf5Reader::~Hdf5Reader() = default;

bool Hdf5Reader::has_attribute(std::string_view attribute) const {
  be_quiet();
  return H5Aexists(state_->file.id.get(), std::string(attribute).c_str()) > 0;
}

int64_t Hdf5Reader::integer(std::string_view attribute) const {
  be_quiet();
  const Id id = state_->attribute(attribute, H5T_INTEGER, "an integer");
  int64_t value = 0;
  state_->file.ok(H5Aread(id.get(), H5T_NATIVE_INT64, &value) >= 0, "an attribute cannot be read");
  return value;
}

std::string Hdf5Reader::text(std::string_view attribute) const {
  be_quiet();
  const Hdf5File& file = state_->file;
  const Id id = state_->attribute(attribute, H5T_STRING, "a text");
  const Id type = file.made(H5Aget_type(id.get()), "an attribute cannot be read");
  const size_t bytes = H5Tget_size(type.get());
  check(H5Tis_variable_str(type.get()) == 0 && bytes > 0 && bytes <= max_text_bytes, ExitCode::input,
        "{}: attribute {} is not a text of fixed length, at most {} bytes", file.path.string(), attribute,
        max_text_bytes);
  std::string value(bytes, '\0');
  file.ok(H5Aread(id.get(), type.get(), value.data()) >= 0, "an attribute cannot be read");
  value.resize(std::min(value.size(), value.find('\0')));
  return value;
}

bool Hdf5Reader::has_dataset(std::string_view name) const {
  be_quiet();
  return state_->is_inside(std::string(name));
}

Hdf5Dataset Hdf5Reader::dataset(std::string_view name) const {
  be_quiet();
  const Hdf5File& file = state_->file;
  Hdf5Dataset out{std::string(name), DType::u8, {}, 0};
  const auto must = [&](bool is_ok, std::string_view what) {
    check(is_ok, ExitCode::input, "{}: dataset {} {}", file.path.string(), name, what);
  };
  must(state_->is_inside(out.name), "is missing");
  const Id id = file.made(H5Dopen2(file.id.get(), out.name.c_str(), H5P_DEFAULT), "a dataset cannot be read");
  const Id type = file.made(H5Dget_type(id.get()), "a dataset cannot be read");
  const auto known = std::find_if(stored_dtypes.begin(), stored_dtypes.end(),
                                  [&](DType dtype) { return H5Tequal(type.get(), type_of(dtype)) > 0; });
  must(known != stored_dtypes.end(), "has a type that is not read here");
  out.dtype = *known;
  const Id layout = file.made(H5Dget_create_plist(id.get()), "a dataset cannot be read");
  must(H5Pget_layout(layout.get()) == H5D_CONTIGUOUS && H5Pget_external_count(layout.get()) == 0,
       "is not contiguous: it was not written by ptrain");
  const Id space = file.made(H5Dget_space(id.get()), "a dataset cannot be read");
  const int dims = H5Sget_simple_extent_ndims(space.get());
  must(dims >= 1 && dims <= Shape::max_dims, "does not have one to four dimensions");
  std::array<hsize_t, Shape::max_dims> extents{};
  H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
  auto most = static_cast<uint64_t>(file.file_bytes / size_bytes(out.dtype));  // elements that fit
  for (int dim = 0; dim < dims; ++dim) {
    const hsize_t extent = extents[static_cast<size_t>(dim)];
    must(extent <= most, "is larger than the file");
    if (extent > 0) most /= extent;
    out.shape.push_back(static_cast<int64_t>(extent));
  }
  if (out.bytes() == 0) return out;
  const haddr_t offset = H5Dget_offset(id.get());
  must(offset != HADDR_UNDEF && offset <= static_cast<haddr_t>(file.file_bytes - out.bytes()),
       "lies outside the file");
  out.offset = static_cast<int64_t>(offset);
  return out;
}

std::vector<std::string> Hdf5Reader::datasets() const {
  be_quiet();
  std::vector<std::string> names;
  const auto take = [](hid_t group, const char* name, const H5L_info_t* link, void* out) -> herr_t {
    auto& found = *static_cast<std::vector<std::string>*>(out);
    if (link->type != H5L_TYPE_HARD) return 0;
    H5O_info_t object;
    if (H5Oget_info_by_name(group, name, &object, H5P_DEFAULT) < 0) return -1;
    if (object.type != H5O_TYPE_DATASET) return 0;
    if (found.size() >= max_datasets) return -1;
    found.emplace_back(name);
    return 0;
  };
  state_->file.ok(H5Lvisit(state_->file.id.get(), H5_INDEX_NAME, H5_ITER_INC, take, &names) >= 0,
                  "the names of its datasets cannot be read");
  std::sort(names.begin(), names.end());
  return names;
}

void Hdf5Reader::read(const Hdf5Dataset& dataset, int64_t begin, int64_t count, void* out) const {
  be_quiet();
  check(dataset.shape.dims() == 1 && begin >= 0 && count >= 0 && begin <= dataset.shape[0] - count,
        "elements [{}, {} + {}) of a dataset of {}", begin, begin, count, to_string(dataset.shape));
  if (count == 0) return;
  const Hdf5File& file = state_->file;
  const std::string what = fmt::format("dataset {} cannot be read", dataset.name);
  const Id id = file.made(H5Dopen2(file.id.get(), dataset.name.c_str(), H5P_DEFAULT), what);
  const Id space = file.made(H5Dget_space(id.get()), what);
  const auto start = static_cast<hsize_t>(begin);
  const auto size = static_cast<hsize_t>(count);
  file.ok(H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &size, nullptr) >= 0, what);
  const Id memory = file.made(H5Screate_simple(1, &size, nullptr), what);
  file.ok(H5Dread(id.get(), type_of(dataset.dtype), memory.get(), space.get(), H5P_DEFAULT, out) >= 0, what);
}

}  // namespace ptrain
