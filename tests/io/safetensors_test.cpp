#include "src/io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "kernels/base/buffer.h"
#include "kernels/base/rng.h"
#include "src/io/elements.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

OwnedTensor random_tensor(Shape shape, uint64_t stream) {
  OwnedTensor tensor(shape, DType::f32);
  const Rng rng(7, stream);
  for (int64_t i = 0; i < shape.numel(); ++i) {
    tensor.view.as<float>()[i] = static_cast<float>(rng.normal(static_cast<uint64_t>(i)));
  }
  return tensor;
}

/// A file of any header and any number of data bytes.
void write_raw(const std::filesystem::path& path, std::string_view header, int64_t data_bytes,
               int64_t told_length = -1) {
  std::ofstream file(path, std::ios::binary);
  const uint64_t length = told_length < 0 ? header.size() : static_cast<uint64_t>(told_length);
  file.write(reinterpret_cast<const char*>(&length), 8);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  file << std::string(static_cast<size_t>(data_bytes), 'x');
}

std::string failure_of_file(const std::filesystem::path& path) {
  try {
    SafetensorsFile::open(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    return error.what();
  }
  return "it was accepted";
}

TEST(Safetensors, WhatIsWrittenIsReadBackWithItsTypesShapesAndMetadata) {
  TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "x.safetensors";
  const Shape shapes[] = {Shape{},        Shape{1},          Shape{7},   Shape{3, 5},
                          Shape{2, 3, 5}, Shape{2, 3, 1, 7}, Shape{0, 4}};
  const DType dtypes[] = {DType::f64, DType::f32,     DType::bf16,    DType::f16, DType::i64, DType::i32,
                          DType::i16, DType::f8_e4m3, DType::f8_e5m2, DType::i8,  DType::u8,  DType::boolean};
  std::vector<OwnedTensor> owned;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const DType dtype : dtypes) {
    for (const Shape& shape : shapes) {
      owned.emplace_back(shape, dtype);
      auto* bytes = static_cast<unsigned char*>(owned.back().view.data);
      const Rng rng(3, owned.size());
      for (int64_t i = 0; i < owned.back().view.bytes(); ++i) {
        bytes[i] = static_cast<unsigned char>(rng.bits(static_cast<uint64_t>(i)));
      }
      tensors.emplace_back(fmt::format("{}.{}", name_of(dtype), to_string(shape)), owned.back().view);
    }
  }
  write_safetensors(path, tensors, {{"text", "a \"quoted\" word, \xc3\xa9"}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.metadata().at("text"), "a \"quoted\" word, \xc3\xa9");
  EXPECT_EQ(file.header_bytes() % 8, 0);
  ASSERT_EQ(file.entries().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const SafetensorsEntry* entry = file.find(name);
    ASSERT_NE(entry, nullptr) << name;
    EXPECT_EQ(entry->dtype, tensor.dtype);
    EXPECT_EQ(entry->shape, tensor.shape);
    const OwnedTensor back = file.read(name);
    if (tensor.bytes() == 0) continue;
    EXPECT_EQ(std::memcmp(back.view.data, tensor.data, static_cast<size_t>(tensor.bytes())), 0) << name;
  }
}

TEST(Safetensors, BoxesAreReadAsTheyLieInTheTensorFromEveryFloatType) {
  TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "x.safetensors";
  const Shape shape{5, 7, 3};
  const OwnedTensor source = random_tensor(shape, 1);
  std::vector<OwnedTensor> owned;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
    owned.emplace_back(shape, dtype);
    convert_elements(source.view.data, DType::f32, owned.back().view.data, dtype, shape.numel());
    tensors.emplace_back(name_of(dtype), owned.back().view);
  }
  write_safetensors(path, tensors);
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const auto& [name, tensor] : tensors) {
    OwnedTensor expected(shape, DType::f32);
    convert_elements(tensor.data, tensor.dtype, expected.view.data, DType::f32, shape.numel());
    const Rng rng(5, 0);
    for (uint64_t round = 0; round < 100; ++round) {
      Box box = whole(shape);
      for (int dim = 0; dim < 3; ++dim) {
        const auto extent = static_cast<uint64_t>(shape[dim]);
        const auto begin = static_cast<int64_t>(rng.below(round * 6 + static_cast<uint64_t>(dim), extent));
        box.begin[static_cast<size_t>(dim)] = begin;
        box.extent.set(dim, 1 + static_cast<int64_t>(rng.below(round * 6 + 3 + static_cast<uint64_t>(dim),
                                                               extent - static_cast<uint64_t>(begin))));
      }
      OwnedTensor part(box.extent, DType::f32), truth(box.extent, DType::f32);
      file.read_box(name, box, part.view);
      copy_common(whole_of(shape), expected.view.data, DType::f32, whole_of(box), truth.view.data,
                  DType::f32);
      ASSERT_EQ(std::memcmp(part.view.data, truth.view.data, static_cast<size_t>(part.view.bytes())), 0)
          << name << " " << to_string(box);
    }
  }
}

TEST(Safetensors, BoxesOfManyChunksAreReadWhole) {
  TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "x.safetensors";
  const Shape shape{1201, 2003};  // 9.6 MB
  const OwnedTensor source = random_tensor(shape, 2);
  write_safetensors(path, {{"w", source.view}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const Box& box : {whole(shape), Box{{0, 3}, Shape{1201, 1999}}, Box{{7, 0}, Shape{1100, 2003}},
                         Box{{0, 2002}, Shape{1201, 1}}}) {
    OwnedTensor part(box.extent, DType::f64), truth(box.extent, DType::f64);
    file.read_box("w", box, part.view);
    copy_common(whole_of(shape), source.view.data, DType::f32, whole_of(box), truth.view.data, DType::f64);
    EXPECT_EQ(std::memcmp(part.view.data, truth.view.data, static_cast<size_t>(part.view.bytes())), 0)
        << to_string(box);
  }
}

TEST(Safetensors, LayoutsPutTensorsOneAfterAnotherBehindAnAlignedHeader) {
  const SafetensorsLayout layout =
      plan_file({{"a", DType::bf16, Shape{3, 5}}, {"b", DType::f32, Shape{}}, {"c", DType::u8, Shape{0}}});
  ASSERT_EQ(layout.entries.size(), 3u);
  EXPECT_EQ(layout.header.size() % 8, 0u);
  EXPECT_EQ(layout.entries[0].offset, static_cast<int64_t>(layout.header.size()));
  EXPECT_EQ(layout.entries[1].offset, layout.entries[0].offset + 30);
  EXPECT_EQ(layout.entries[2].offset, layout.file_bytes);
  EXPECT_THROW(plan_file({{"a", DType::f32, Shape{1}}, {"a", DType::f32, Shape{1}}}), Error);
}

TEST(Safetensors, HostileFilesAreRefusedWithTheReason) {
  TemporaryDirectory directory;
  const std::string f32 = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  struct Case {
    std::string header;
    int64_t data_bytes;
    std::string reason;
    int64_t told_length = -1;
  };
  const Case cases[] = {
      {R"({"a":)" + f32 + "}", 7, "the file holds 7 bytes of data: is it truncated?"},
      {R"({"a":)" + f32 + "}", 9, "1 bytes follow the last tensor"},
      {"{}", 5, "5 bytes follow the last tensor"},
      {R"({"a":)" + f32 + R"(,"a":)" + f32 + "}", 8, "the name \"a\" appears twice"},
      {R"({"a":)" + f32 + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "\"b\" overlaps"},
      {R"({"a":)" + f32 + R"(,"b":)" + f32 + "}", 8, "\"b\" overlaps"},
      {R"({"a":)" + f32 + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}})", 16,
       "a hole of 4 bytes before tensor \"b\""},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "a hole of 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8,
       "F32 of shape [3] has not the 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "no negative number"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "expected an integer"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,2],"data_offsets":[0,8]}})", 8,
       "has not the 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[0,4611686018427387904,9],"data_offsets":[0,0]}})", 0,
       "has not the 0 bytes"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", 8,
       "a smaller integer"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})", 8,
       "a smaller integer"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "data_offsets [8, 0]"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "not an array of two numbers"},
      {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", 8, "expected an array"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,8]}})", 8, "has 5 dimensions"},
      {R"({"a":{"dtype":"F12","shape":[2],"data_offsets":[0,8]}})", 8,
       "the dtype \"F12\", which is not supported"},
      {R"({"a":{"dtype":32,"shape":[2],"data_offsets":[0,8]}})", 8, "expected a string"},
      {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8, "\"dtype\" is missing"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8, "\"shape\" is missing"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "\"data_offsets\" is missing"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8, "4 members"},
      {R"({"a":7})", 8, "\"a\" is an integer, expected an object"},
      {R"({"__metadata__":{"a":1}})", 0, "expected a string"},
      {R"({"__metadata__":7})", 0, "expected an object"},
      {R"([1,2])", 0, "does not begin with a brace"},
      {R"( {})", 0, "does not begin with a brace"},
      {R"({"a":)", 0, "not valid JSON"},
      {R"({} x)", 0, "not valid JSON"},
      {"{\"a\":" + std::string(100000, '['), 0, "nested deeper"},
      {"{}", 100, "but the file has only 110 bytes: is it truncated?", 103},
      {"{}", 100, "at most 100000000 are accepted", 100'000'001},
      {"{}", 100, "at most 100000000 are accepted", std::numeric_limits<int64_t>::max()},
      {"{}", 100, "does not begin with a brace", 0},
  };
  int number = 0;
  for (const Case& hostile : cases) {
    const std::filesystem::path path = directory.path() / fmt::format("{}.safetensors", number++);
    write_raw(path, hostile.header, hostile.data_bytes, hostile.told_length);
    const std::string reason = failure_of_file(path);
    EXPECT_NE(reason.find(hostile.reason), std::string::npos)
        << hostile.header.substr(0, 200) << "\n  says: " << reason << "\n  expected: " << hostile.reason;
  }
  EXPECT_NE(failure_of_file(directory.path() / "absent").find("No such file"), std::string::npos);
  EXPECT_NE(failure_of_file(directory.path()).find("not a regular file"), std::string::npos);
  std::ofstream(directory.path() / "short") << "12345";
  EXPECT_NE(failure_of_file(directory.path() / "short").find("is it truncated?"), std::string::npos);
}

TEST(Safetensors, EveryTruncationOfAFileIsRefused) {
  TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "x.safetensors";
  const OwnedTensor a = random_tensor(Shape{3, 5}, 1), b = random_tensor(Shape{4}, 2);
  write_safetensors(path, {{"a", a.view}, {"b", b.view}});
  for (auto bytes = static_cast<int64_t>(std::filesystem::file_size(path)) - 1; bytes >= 0; --bytes) {
    std::filesystem::resize_file(path, static_cast<uintmax_t>(bytes));
    ASSERT_NE(failure_of_file(path), "it was accepted") << bytes << " bytes";
  }
}

TEST(Safetensors, NoFlippedByteOfAHeaderDoesMoreThanBeRefused) {
  TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "x.safetensors";
  const OwnedTensor a = random_tensor(Shape{3, 5}, 1), b = random_tensor(Shape{4}, 2);
  write_safetensors(path, {{"a", a.view}, {"b", b.view}}, {{"format", "pt"}});
  const int64_t header_bytes = SafetensorsFile::open(path).header_bytes();
  const File file = File::open_for_writing(path), before = File::open(path);
  for (int64_t at = 0; at < header_bytes; ++at) {
    for (const int mask : {0x01, 0x02, 0x10, 0x80, 0xff}) {
      char byte = 0;
      before.read_at(at, &byte, 1);
      const auto flipped = static_cast<char>(byte ^ mask);
      file.write_at(at, &flipped, 1);
      try {
        const SafetensorsFile opened = SafetensorsFile::open(path);
        for (const SafetensorsEntry& entry : opened.entries())
          opened.read(entry.name);  // what is accepted can be read
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ExitCode::input);
      }
      file.write_at(at, &byte, 1);
    }
  }
}

}  // namespace
}  // namespace ptrain
