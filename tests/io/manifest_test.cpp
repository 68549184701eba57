#include "src/io/manifest.h"

#include <gtest/gtest.h>

#include <functional>

#include "kernels/base/crc32c.h"
#include "kernels/base/error.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

Manifest small_manifest() {
  Manifest manifest;
  manifest.step = 12;
  manifest.run = {{"seed", 1}, {"note", "with \"crc32c\": \"00000000\" inside"}};
  manifest.files = {{"model.safetensors", 1000, 0x12345678}, {"state/rank-00000.h5", 500, 0}};
  const Shape shape{4, 6};
  const Slice left = whole_of(Box{{0, 0}, Shape{4, 2}}), right = whole_of(Box{{0, 2}, Shape{4, 4}});
  manifest.tensors[Manifest::Kind::weight] = {{"w",
                                               shape,
                                               DType::bf16,
                                               {{"model.safetensors", 200, Packing::in_tensor, left, {1}},
                                                {"model.safetensors", 200, Packing::in_tensor, right, {2}}}}};
  manifest.tensors[Manifest::Kind::first_moment] = {
      {"w",
       shape,
       DType::f32,
       {{"state/rank-00000.h5", 64, Packing::packed, {whole(shape), {0, 10}}, {3}},
        {"state/rank-00000.h5", 128, Packing::packed, {whole(shape), {10, 14}}, {0xffffffff}}}}};
  return manifest;
}

std::string failure_of(const std::string& text) {
  try {
    parse_manifest(text, "MANIFEST.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.what();
  }
  return "it was accepted";
}

/// The manifest with something changed and a CRC that is right again.
std::string forged(const std::function<void(Json&)>& change) {
  Json json = parse_json(to_text(small_manifest()), "manifest");
  json.erase("crc32c");
  change(json);
  std::string text = json.dump(0);
  text.resize(text.size() - 2);
  return text + fmt::format(",\n\"crc32c\": \"{:08x}\"\n}}\n", crc32c(text.data(), text.size()));
}

TEST(Manifest, IsReadBackAsItWasWritten) {
  const Manifest manifest = small_manifest();
  const std::string text = to_text(manifest);
  EXPECT_TRUE(is_manifest(text));
  EXPECT_FALSE(is_manifest("{\"files\": []}"));
  const Manifest back = parse_manifest(text, "MANIFEST.json");
  EXPECT_EQ(to_text(back), text);
  EXPECT_EQ(back.step, 12);
  EXPECT_EQ(back.run, manifest.run);
  EXPECT_EQ(back.files[0].rest_crc, 0x12345678u);
  const StoredTensor& moment = back.of(Manifest::Kind::first_moment)[0];
  EXPECT_EQ(moment.slices[1].slice, (Slice{whole(Shape{4, 6}), {10, 14}}));
  EXPECT_EQ(moment.slices[1].crcs, std::vector<uint32_t>{0xffffffff});
  EXPECT_TRUE(back.of(Manifest::Kind::master).empty());
}

TEST(Manifest, APartSaysWhichAndNeedNotHoldAllOfTheState) {
  Manifest manifest = small_manifest();
  EXPECT_EQ(to_text(manifest).find("\"part\""), std::string::npos);
  manifest.part = {.index = 1, .of = 3, .save = "s", .host = "host-b"};
  manifest.tensors[Manifest::Kind::first_moment][0].slices.pop_back();
  EXPECT_EQ(parse_manifest(to_text(manifest), "MANIFEST.json").part, manifest.part);
  manifest.part = {};
  EXPECT_NE(failure_of(to_text(manifest)).find("10 of 24 elements"), std::string::npos);
  manifest.part = {.index = 1, .of = 3, .save = "s", .host = "host-b"};
  manifest.tensors[Manifest::Kind::weight][0].slices.pop_back();
  EXPECT_NE(failure_of(to_text(manifest)).find("8 of 24 elements"), std::string::npos);
}

TEST(Manifest, EveryTruncationAndEveryFlippedBitIsFound) {
  const std::string text = to_text(small_manifest());
  for (size_t size = 0; size < text.size(); ++size) {
    ASSERT_NE(failure_of(text.substr(0, size)), "it was accepted") << size;
  }
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string flipped = text;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    ASSERT_NE(failure_of(flipped), "it was accepted") << bit;
  }
}

TEST(Manifest, ForgedOnesThatPointOutOrContradictThemselvesAreRefused) {
  const auto slice = [](Json& json, const char* kind, size_t i) -> Json& {
    return json["tensors"][kind]["w"]["slices"][i];
  };
  struct Case {
    std::function<void(Json&)> change;
    std::string reason;
  };
  const Case cases[] = {
      {[](Json& j) { j["format"] = "ptrain checkpoint 1"; }, "its format is \"ptrain checkpoint 1\""},
      {[](Json& j) { j.erase("step"); }, "\"step\" is missing"},
      {[](Json& j) { j["step"] = -1; }, "no sensible number"},
      {[](Json& j) { j["part"] = 1; }, "\"part\" is"},
      {[](Json& j) {
         j["part"] = {{"index", 2}, {"of", 2}, {"save", ""}, {"host", ""}};
       },
       "it is part 2 of 2 parts"},
      {[](Json& j) {
         j["part"] = {{"index", 0}, {"of", 2}};
       },
       "\"save\" is missing"},
      {[](Json& j) { j["files"] = 7; }, "\"files\" is missing or no array"},
      {[](Json& j) { j["files"][0]["name"] = "../model.safetensors"; }, "does not lie in the checkpoint"},
      {[](Json& j) { j["files"][0]["name"] = "/etc/passwd"; }, "does not lie in the checkpoint"},
      {[](Json& j) { j["files"][0]["name"] = "state/../x"; }, "does not lie in the checkpoint"},
      {[](Json& j) { j["files"][0]["name"] = ""; }, "does not lie in the checkpoint"},
      {[](Json& j) { j["files"][1]["name"] = "model.safetensors"; }, "is listed twice"},
      {[](Json& j) { j["files"][0]["rest_crc32c"] = "123"; }, "is not a CRC32C"},
      {[](Json& j) { j["files"][0]["rest_crc32c"] = "1234567A"; }, "is not a CRC32C"},
      {[](Json& j) { j["files"][0]["bytes"] = 240; }, "lies outside of model.safetensors"},
      {[](Json& j) { j["files"].erase(1); }, "lies outside of state/rank-00000.h5"},
      {[](Json& j) { j["tensors"]["third_moment"] = Json::object(); }, "unknown kind \"third_moment\""},
      {[](Json& j) { j["tensors"]["weight"]["w"]["dtype"] = "F12"; }, "the dtype \"F12\" is not known"},
      {[](Json& j) {
         j["tensors"]["weight"]["w"]["shape"] = Json::array({1, 2, 3, 4, 5});
       },
       "5 dimensions"},
      {[](Json& j) {
         j["tensors"]["weight"]["w"]["shape"] = Json::array({int64_t{1} << 40, int64_t{1} << 40});
       },
       "no sensible size"},
      {[](Json& j) {
         j["tensors"]["weight"]["w"]["shape"] = Json::array({4, 7});
       },
       "24 of 28 elements are covered"},
      {[&](Json& j) {
         slice(j, "weight", 0)["box"] = Json::array({Json::array({0, 5}), Json::array({0, 2})});
       },
       "a box that ends at 5 of 4"},
      {[&](Json& j) {
         slice(j, "weight", 0)["box"] = Json::array({Json::array({3, 1}), Json::array({0, 2})});
       },
       "goes from 3 to 1"},
      {[&](Json& j) {
         slice(j, "weight", 0)["box"] = Json::array({Json::array({0, 4})});
       },
       "a box of 1 dimensions"},
      {[&](Json& j) {
         slice(j, "weight", 1)["box"][1] = Json::array({1, 5});
       },
       "overlap"},
      {[&](Json& j) {
         slice(j, "first_moment", 1)["elements"] = Json::array({9, 24});
       },
       "overlap"},
      {[&](Json& j) {
         slice(j, "first_moment", 1)["elements"] = Json::array({10, 25});
       },
       "elements to 25 of 24"},
      {[&](Json& j) {
         slice(j, "first_moment", 1)["elements"] = Json::array({11, 24});
       },
       "23 of 24 elements"},
      {[&](Json& j) { slice(j, "first_moment", 1)["offset"] = 445; }, "lies outside of state/rank-00000.h5"},
      {[&](Json& j) { slice(j, "first_moment", 1)["offset"] = int64_t{1} << 62; }, "no sensible number"},
      {[&](Json& j) { slice(j, "first_moment", 1)["crc32c"] = Json::array(); }, "0 CRCs for 1 chunks"},
      {[&](Json& j) { slice(j, "first_moment", 1)["packed"] = 1; }, "expected true or false"},
  };
  EXPECT_EQ(failure_of(forged([](Json&) {})), "it was accepted");
  for (const Case& c : cases) {
    const std::string reason = failure_of(forged(c.change));
    EXPECT_NE(reason.find(c.reason), std::string::npos) << reason << "\n  expected: " << c.reason;
  }
}

}  // namespace
}  // namespace ptrain
