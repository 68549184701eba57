#include "src/io/hdf5.h"

#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <numeric>

#include "kernels/base/error.h"
#include "tests/support/files.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

void put_at(const std::filesystem::path& path, int64_t offset, const void* data, int64_t bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(offset);
  file.write(static_cast<const char*>(data), bytes);
  ASSERT_TRUE(file.flush());
}

/// A small file with two datasets and two attributes, all bytes written.
void write_sample(const std::filesystem::path& path) {
  Hdf5Writer writer(path);
  writer.set("format", "sample");
  writer.set("count", int64_t{1} << 40);
  const Hdf5Dataset small = writer.add("small", DType::i32, {7});
  const Hdf5Dataset large = writer.add("group/inner/large", DType::f32, {3, 700});
  writer.close();
  std::vector<int32_t> ints(7);
  std::iota(ints.begin(), ints.end(), -3);
  std::vector<float> floats(2100);
  std::iota(floats.begin(), floats.end(), 0.5f);
  put_at(path, small.offset, ints.data(), small.bytes());
  put_at(path, large.offset, floats.data(), large.bytes());
}

TEST(Hdf5, BytesWrittenAtAnOffsetAreReadByHdf5) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  write_sample(path);
  const Hdf5Reader reader(path);
  EXPECT_EQ(reader.text("format"), "sample");
  EXPECT_EQ(reader.integer("count"), int64_t{1} << 40);
  EXPECT_EQ(reader.datasets(), (std::vector<std::string>{"group/inner/large", "small"}));
  const Hdf5Dataset small = reader.dataset("small");
  EXPECT_EQ(small.dtype, DType::i32);
  EXPECT_EQ(small.shape, (Shape{7}));
  std::vector<int32_t> ints(3);
  reader.read(small, 2, 3, ints.data());
  EXPECT_EQ(ints, (std::vector<int32_t>{-1, 0, 1}));
  const Hdf5Dataset large = reader.dataset("group/inner/large");
  EXPECT_EQ(large.shape, (Shape{3, 700}));
  EXPECT_EQ(large.offset % 4096, 0) << "large datasets begin on a page";
  float value = 0;
  std::memcpy(&value, bytes_of(path).data() + large.offset + 4 * 701, 4);
  EXPECT_EQ(value, 701.5f);
}

TEST(Hdf5, EveryDtypeThatIsStoredComesBack) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  const std::vector<DType> dtypes = {DType::f64, DType::f32, DType::i64, DType::i32,
                                     DType::i16, DType::i8,  DType::u8};
  {
    Hdf5Writer writer(path);
    for (const DType dtype : dtypes) writer.add(name_of(dtype), dtype, {2, 3, 5, 7});
    writer.close();
  }
  const Hdf5Reader reader(path);
  for (const DType dtype : dtypes) {
    EXPECT_EQ(reader.dataset(name_of(dtype)).dtype, dtype);
    EXPECT_EQ(reader.dataset(name_of(dtype)).bytes(), 210 * size_bytes(dtype));
  }
  EXPECT_FALSE(reader.has_dataset("f16"));
}

TEST(Hdf5, EmptyDatasetsAndTextsAreFine) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  {
    Hdf5Writer writer(path);
    writer.set("nothing", "");
    EXPECT_EQ(writer.add("none", DType::i64, {0}).offset, 0);
    writer.close();
  }
  const Hdf5Reader reader(path);
  EXPECT_EQ(reader.text("nothing"), "");
  EXPECT_EQ(reader.dataset("none").bytes(), 0);
  reader.read(reader.dataset("none"), 0, 0, nullptr);
}

TEST(Hdf5, TheSameContentGivesTheSameBytes) {
  const TemporaryDirectory directory;
  write_sample(directory.path() / "a.h5");
  write_sample(directory.path() / "b.h5");
  EXPECT_EQ(bytes_of(directory.path() / "a.h5"), bytes_of(directory.path() / "b.h5"));
}

TEST(Hdf5, SaysWhatIsWrongWithAFile) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "a.h5";
  const std::string name = path.string();
  const auto open = [&] { Hdf5Reader reader(path); };
  EXPECT_EQ(message_of(open, ExitCode::input), name + ": no such file");
  put(path, "not HDF5 at all");
  EXPECT_EQ(message_of(open, ExitCode::input).find(name + ": not a whole HDF5 file: "), 0u);
  put(path, "");
  EXPECT_EQ(message_of(open, ExitCode::input).find(name + ": not a whole HDF5 file: "), 0u);
  write_sample(path);
  const Hdf5Reader reader(path);
  const auto text = [&](const std::function<void()>& work) { return message_of(work, ExitCode::input); };
  EXPECT_EQ(text([&] { reader.integer("missing"); }), name + ": attribute missing is missing");
  EXPECT_EQ(text([&] { reader.integer("format"); }), name + ": attribute format is not an integer");
  EXPECT_EQ(text([&] { reader.text("count"); }), name + ": attribute count is not a text");
  EXPECT_EQ(text([&] { reader.dataset("missing"); }), name + ": dataset missing is missing");
  EXPECT_EQ(text([&] { reader.dataset("group/missing/large"); }),
            name + ": dataset group/missing/large is missing");
  EXPECT_NE(text([&] { reader.dataset("group"); }), "nothing was thrown");
  EXPECT_EQ(message_of([&] { Hdf5Writer(directory.path() / "no/such/folder.h5"); }, ExitCode::resources)
                .find((directory.path() / "no/such/folder.h5").string() + ": cannot be written: "),
            0u);
}

TEST(Hdf5, WhatIsNotAPlainExtentIsRefused) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "hostile.h5";
  write_sample(directory.path() / "other.h5");
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t extent = 100;
  const hid_t space = H5Screate_simple(1, &extent, nullptr);
  const hsize_t huge = hsize_t{1} << 60;
  const hid_t huge_space = H5Screate_simple(1, &huge, nullptr);
  const hid_t chunked = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(chunked, 1, &extent);
  const hid_t outside = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_external(outside, "/etc/passwd", 0, 400);
  H5Dclose(H5Dcreate2(file, "chunked", H5T_STD_I32LE, space, H5P_DEFAULT, chunked, H5P_DEFAULT));
  H5Dclose(H5Dcreate2(file, "outside", H5T_STD_I32LE, space, H5P_DEFAULT, outside, H5P_DEFAULT));
  H5Dclose(H5Dcreate2(file, "big_endian", H5T_STD_I32BE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Dclose(H5Dcreate2(file, "unwritten", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Dclose(H5Dcreate2(file, "huge", H5T_STD_I32LE, huge_space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Lcreate_external("other.h5", "small", file, "linked", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/chunked", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
  H5Pclose(outside);
  H5Pclose(chunked);
  H5Sclose(huge_space);
  H5Sclose(space);
  ASSERT_GE(H5Fclose(file), 0);

  const Hdf5Reader reader(path);
  const auto text = [&](std::string_view name) {
    return message_of([&] { reader.dataset(name); }, ExitCode::input);
  };
  const std::string where = path.string();
  EXPECT_EQ(text("chunked"), where + ": dataset chunked is not contiguous: it was not written by ptrain");
  EXPECT_EQ(text("outside"), where + ": dataset outside is not contiguous: it was not written by ptrain");
  EXPECT_EQ(text("big_endian"), where + ": dataset big_endian has a type that is not read here");
  EXPECT_EQ(text("unwritten"), where + ": dataset unwritten lies outside the file");
  EXPECT_EQ(text("huge"), where + ": dataset huge is larger than the file");
  EXPECT_EQ(text("linked"), where + ": linked is a link to somewhere else");
  EXPECT_EQ(text("soft"), where + ": soft is a link to somewhere else");
}

/// What a reader makes of a file; false if it refuses it.
bool reads_whole(const std::filesystem::path& path) {
  try {
    const Hdf5Reader reader(path);
    bool is_same = reader.text("format") == "sample" && reader.integer("count") == int64_t{1} << 40;
    const Hdf5Dataset small = reader.dataset("small");
    const Hdf5Dataset large = reader.dataset("group/inner/large");
    is_same = is_same && small.shape == Shape{7} && large.shape == Shape{3, 700};
    std::vector<int32_t> ints(7);
    reader.read(small, 0, 7, ints.data());
    EXPECT_TRUE(is_same) << "a damaged file was read as something else";
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return false;
  }
}

TEST(Hdf5, TruncatedFilesAreRefused) {
  const TemporaryDirectory directory;
  write_sample(directory.path() / "whole.h5");
  const std::string bytes = bytes_of(directory.path() / "whole.h5");
  const auto path = directory.path() / "cut.h5";
  for (size_t size = 0; size < bytes.size(); size += 97) {
    put(path, std::string_view(bytes).substr(0, size));
    EXPECT_FALSE(reads_whole(path)) << size << " of " << bytes.size() << " bytes";
  }
}

TEST(Hdf5, FlippedBitsInItsStructureAreFoundOrHarmless) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "flipped.h5";
  write_sample(path);
  const std::string bytes = bytes_of(path);
  int refused = 0;
  for (size_t at = 0; at < std::min<size_t>(bytes.size(), 4096); at += 3) {
    const char flipped = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
    put_at(path, static_cast<int64_t>(at), &flipped, 1);
    refused += !reads_whole(path);
    put_at(path, static_cast<int64_t>(at), &bytes[at], 1);
  }
  EXPECT_TRUE(reads_whole(path));
  EXPECT_GT(refused, 100) << "superblock, object headers and links are under a checksum";
}

TEST(Hdf5, AFileThatCouldNotBeWrittenDoesNotCrashTheProcessAtItsEnd) {
  for (const rlim_t bytes : {0, 48, 147, 200, 400, 800, 1600, 2400, 3200, 4000, 4096, 5000, 6000}) {
    const TemporaryDirectory directory;
    const pid_t child = ::fork();
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit small{bytes, bytes};
      ::setrlimit(RLIMIT_FSIZE, &small);  // as on a full disk
      bool has_failed = false;
      try {
        Hdf5Writer writer(directory.path() / "a.h5");
        for (int i = 0; i < 40; ++i) writer.add(fmt::format("x{}/y", i), DType::f32, Shape{10});
        writer.close();
      } catch (const Error& error) {
        has_failed = std::string(error.what()).find('\n') == std::string::npos;
      }
      std::exit(has_failed ? 7 : 1);  // with all that libraries do at the end
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << bytes << " bytes: " << status;
  }
}

}  // namespace
}  // namespace ptrain
