#include "src/convert/gguf.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/base/error.h"
#include "kernels/base/rng.h"
#include "src/convert/utf8.h"
#include "tests/convert/gguf_writer.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

std::string random_bytes(size_t count, uint64_t stream) {
  const Rng rng(11, stream);
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(rng.bits(i));
  return bytes;
}

/// The value of an IEEE half from its three parts.
double half(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

uint16_t half_bits(const std::string& bytes, size_t at) {
  return static_cast<uint16_t>(static_cast<unsigned char>(bytes[at]) |
                               static_cast<unsigned char>(bytes[at + 1]) << 8);
}

/// Element `i` of packed bytes, by the definition of each type.
double element(uint32_t type, const std::string& bytes, size_t i) {
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(bytes[at]); };
  if (type == 0) {
    float value;
    std::memcpy(&value, bytes.data() + 4 * i, 4);
    return value;
  }
  if (type == 1) return half(half_bits(bytes, 2 * i));
  if (type == 30) return std::bit_cast<float>(static_cast<uint32_t>(half_bits(bytes, 2 * i)) << 16);
  const size_t size = type == 8 ? 34 : type == 2 ? 18 : 20;
  const size_t block = i / 32 * size, k = i % 32;
  const double d = half(half_bits(bytes, block));
  if (type == 8) return d * static_cast<signed char>(bytes[block + 2 + k]);
  const size_t nibbles = block + (type == 2 ? 2 : 4);
  const int q = k < 16 ? byte(nibbles + k) & 15 : byte(nibbles + k - 16) >> 4;
  return type == 2 ? d * (q - 8) : d * q + half(half_bits(bytes, block + 2));
}

/// Random bytes of a type, with scales that are finite.
std::string packed(const GgufType& type, size_t blocks, uint64_t stream) {
  std::string bytes = random_bytes(blocks * static_cast<size_t>(type.block_bytes), stream);
  const size_t halves = type.id == 3 ? 2 : 1;
  for (size_t block = 0; block < blocks; ++block) {
    const size_t at = block * static_cast<size_t>(type.block_bytes);
    if (type.id == 0 || type.id == 30) bytes[at + static_cast<size_t>(type.block_bytes) - 1] &= 0x3f;
    for (size_t i = 0; type.id != 0 && type.id != 30 && i < halves; ++i) bytes[at + 2 * i + 1] &= char(0xbb);
  }
  return bytes;
}

TEST(Gguf, EveryReadableTypeIsDequantisedAsDefined) {
  TemporaryDirectory directory;
  for (const uint32_t id : {0u, 1u, 2u, 3u, 8u, 30u}) {
    for (const uint32_t version : {2u, 3u}) {
      const GgufType& type = *gguf_type(id);
      constexpr size_t rows = 5, columns = 96;
      const std::string bytes = packed(type, rows * columns / static_cast<size_t>(type.block_elements), id);
      GgufWriter writer;
      writer.version = version;
      writer.add("before", {3}, {1.0f, 2.0f, 3.0f});
      writer.add("w", {columns, rows}, id, bytes);
      writer.write(directory.path() / "x.gguf");
      const GgufFile file = GgufFile::open(directory.path() / "x.gguf");
      const GgufTensor* tensor = file.find("w");
      ASSERT_NE(tensor, nullptr);
      EXPECT_EQ(tensor->shape, (Shape{rows, columns}));
      std::vector<float> values(2 * columns);
      std::vector<char> staging;
      file.read_rows(*tensor, 3, 2, values.data(), staging);
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], static_cast<float>(element(id, bytes, 3 * columns + i)))
            << type.name << " " << i;
      }
    }
  }
}

TEST(Gguf, MetadataKeepsKindsAndAnswersByKind) {
  TemporaryDirectory directory;
  GgufWriter writer;
  writer.set("text", "a \xc3\xa9");
  writer.set("count", 7);
  writer.set("number", 0.5f);
  writer.set("truth", true);
  writer.set("texts", std::vector<std::string>{"a", "", "b c"});
  writer.set("integers", std::vector<int32_t>{1, -2});
  writer.set("numbers", std::vector<float>{0.25f});
  writer.set_raw("byte", GgufWriter::u8, "\xff");
  writer.set_raw("empty", GgufWriter::array, std::string("\x08\0\0\0\0\0\0\0\0\0\0\0", 12));
  writer.write(directory.path() / "x.gguf");
  const GgufFile file = GgufFile::open(directory.path() / "x.gguf");
  EXPECT_EQ(file.required<std::string>("text"), "a \xc3\xa9");
  EXPECT_EQ(file.required<int64_t>("count"), 7);
  EXPECT_EQ(file.required<double>("count"), 7.0);
  EXPECT_EQ(file.required<double>("number"), 0.5);
  EXPECT_TRUE(file.required<bool>("truth"));
  EXPECT_EQ(file.required<std::vector<std::string>>("texts"), (std::vector<std::string>{"a", "", "b c"}));
  EXPECT_EQ(file.required<std::vector<int64_t>>("integers"), (std::vector<int64_t>{1, -2}));
  EXPECT_EQ(file.required<std::vector<double>>("numbers"), std::vector<double>{0.25});
  EXPECT_EQ(file.required<int64_t>("byte"), 255);
  EXPECT_TRUE(file.required<std::vector<std::string>>("empty").empty());
  EXPECT_EQ(file.get<int64_t>("absent"), std::nullopt);
  EXPECT_THROW(file.get<int64_t>("text"), Error);
  EXPECT_THROW(file.required<bool>("absent"), Error);
}

TEST(Gguf, KQuantsAndTheirKindAreListedButRefusedByNameWhenRead) {
  TemporaryDirectory directory;
  for (const uint32_t id : {6u, 7u, 9u, 10u, 11u, 12u, 13u, 14u, 15u, 20u, 23u, 39u}) {
    const GgufType& type = *gguf_type(id);
    GgufWriter writer;
    writer.add("w", {static_cast<uint64_t>(type.block_elements), 1}, id,
               std::string(static_cast<size_t>(type.block_bytes), 'x'));
    writer.write(directory.path() / "x.gguf");
    const GgufFile file = GgufFile::open(directory.path() / "x.gguf");
    std::vector<float> values(256);
    std::vector<char> staging;
    try {
      file.read_rows(*file.find("w"), 0, 1, values.data(), staging);
      FAIL() << type.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      EXPECT_NE(std::string(error.what()).find(fmt::format("\"w\" is {}, which is not supported", type.name)),
                std::string::npos)
          << error.what();
    }
  }
}

std::string failure_of(const std::string& bytes) {
  static const TemporaryDirectory directory;  // one for all of the many files
  const std::filesystem::path path = directory.path() / "x.gguf";
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    GgufFile::open(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos);
    return error.what();
  }
  return "it was accepted";
}

GgufWriter good() {
  GgufWriter writer;
  writer.set("general.architecture", "llama");
  writer.set("tokens", std::vector<std::string>{"a", "bc"});
  writer.add("w", {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  writer.add("v", {3}, {1, 2, 3});
  return writer;
}

std::string with(const std::function<void(GgufWriter&)>& change) {
  GgufWriter writer = good();
  change(writer);
  return writer.bytes();
}

std::string number(uint64_t value) {
  std::string bytes;
  GgufWriter::put(bytes, value);
  return bytes;
}

TEST(Gguf, HostileFilesAreRefusedBeforeAnythingIsAllocated) {
  const std::string f32_array("\x06\0\0\0", 4), text_array("\x08\0\0\0", 4), nested("\x09\0\0\0", 4);
  const std::string bad_array("\x0d\0\0\0", 4);
  struct Case {
    std::string bytes;
    std::string reason;
  };
  const Case cases[] = {
      {"", "too few for a GGUF file"},
      {"GGUF", "too few for a GGUF file"},
      {with([](auto& w) { w.magic = "GGML"; }), "does not begin with GGUF"},
      {with([](auto& w) { w.version = 1; }), "GGUF version 1"},
      {with([](auto& w) { w.version = 0x03000000; }), "versions 2 and 3 are supported"},
      {with([](auto& w) { w.num_tensors = UINT64_MAX; }), "says that it holds 18446744073709551615 tensors"},
      {with([](auto& w) { w.num_tensors = 1u << 30; }), "says that it holds 1073741824 tensors"},
      {with([](auto& w) { w.num_keys = UINT64_MAX / 2; }), "metadata keys, but only"},
      {with([](auto& w) { w.num_keys = 9; }), ""},
      {with([](auto& w) { w.set_raw("t", GgufWriter::text, number(UINT64_MAX)); }),
       "t would be 18446744073709551615"},
      {with([](auto& w) { w.set_raw("t", GgufWriter::text, number(1000)); }), "t would be 1000 bytes long"},
      {with([&](auto& w) { w.set_raw("a", GgufWriter::array, f32_array + number(UINT64_MAX / 4)); }),
       "a elements, but only"},
      {with([&](auto& w) { w.set_raw("a", GgufWriter::array, text_array + number(1u << 28)); }),
       "says that it holds 268435456 a elements"},
      {with([&](auto& w) { w.set_raw("a", GgufWriter::array, nested + number(1)); }), "an array of arrays"},
      {with([&](auto& w) { w.set_raw("a", GgufWriter::array, bad_array + number(1)); }),
       "an array of the unknown value type 13"},
      {with([](auto& w) { w.set_raw("a", 13, "x"); }), "a has the unknown value type 13"},
      {with([](auto& w) { w.set_raw("a", GgufWriter::boolean, "\x02"); }), "a is 2, expected 0 or 1"},
      {with([](auto& w) { w.set_raw("a", GgufWriter::u64, number(UINT64_MAX)); }), "more than fits"},
      {with([](auto& w) { w.set("a", "\xff\xfe"); }), "a is not UTF-8"},
      {with([](auto& w) { w.set("general.architecture", "qwen2"); }),
       "\"general.architecture\" appears twice"},
      {with([](auto& w) { w.set("general.alignment", 0); }), "expected a power of two"},
      {with([](auto& w) { w.set("general.alignment", 33); }), "expected a power of two"},
      {with([](auto& w) { w.set("general.alignment", "x"); }), "is x, expected an integer"},
      {with([](auto& w) { w.set("general.alignment", 64); }), "no multiple of the alignment 64"},
      {with([](auto& w) { w.add("w", {1}, {1}); }), "the tensor \"w\" appears twice"},
      {with([](auto& w) { w.add("x", {}, 0, "1234"); }), "\"x\" has 0 dimensions"},
      {with([](auto& w) {
         w.add("x", {1, 1, 1, 1, 1}, 0, "1234");
       }),
       "\"x\" has 5 dimensions"},
      {with([](auto& w) { w.add("x", {0}, 0, ""); }), "dimension 0 is 0: no sensible size"},
      {with([](auto& w) { w.add("x", {UINT64_MAX}, 0, "1234"); }), "no sensible size"},
      {with([](auto& w) {
         w.add("x", {1u << 21, 1u << 21, 1u << 21}, 0, "1234");
       }),
       "no sensible size"},
      {with([](auto& w) { w.add("x", {1}, 4, "1234"); }), "the unknown type number 4"},
      {with([](auto& w) { w.add("x", {33}, 8, "1234"); }), "packs 32 elements in a block, but a row has 33"},
      {with([](auto& w) { w.add("x", {1}, 0, "1234", 1 << 20); }), "is it truncated?"},
      {with([](auto& w) { w.add("x", {1}, 0, "1234", -1000000); }), "lies outside of the file"},
      {with([](auto& w) { w.add("x", {1}, 0, "1234", 4); }), "no multiple of the alignment 32"},
      {with([](auto& w) { w.add("x", {2}, 0, "1234"); }), "is it truncated?"},
      {with([](auto& w) { w.add("x", {1}, 0, "1234", -64); }), "overlap"},
  };
  EXPECT_EQ(failure_of(good().bytes()), "it was accepted");
  for (const Case& hostile : cases) {
    const std::string reason = failure_of(hostile.bytes);
    EXPECT_NE(reason, "it was accepted") << hostile.reason;
    EXPECT_NE(reason.find(hostile.reason), std::string::npos) << reason << "\n  expected: " << hostile.reason;
  }
}

TEST(Gguf, EveryTruncationIsRefusedAndNoFlippedByteOfTheHeaderCrashes) {
  const std::string whole = good().bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    ASSERT_NE(failure_of(whole.substr(0, size)), "it was accepted") << size;
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int mask : {0x01, 0xff}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ mask);
      failure_of(bytes);  // refused or not: it comes back
    }
  }
}

TEST(Utf8, IsToldFromOtherBytes) {
  for (const std::string_view good :
       {"", "a", "\xc3\xa9", "\xe2\x96\x81", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good));
  }
  for (const std::string_view bad :
       {"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3\xc3"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

}  // namespace
}  // namespace ptrain
