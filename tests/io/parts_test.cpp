#include "src/io/parts.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

const Disks two{{0, 0, 1, 1}, {"host-a", "host-b"}};

PartCopy copy(int index, int of, int disk, std::string save = "2", std::string fault = "") {
  return {.part = {index, of, std::move(save), index == 0 ? "host-a" : "host-b"},
          .disk = disk,
          .directory = "step-00000007",
          .fault = std::move(fault)};
}

/// "index@disk" of each chosen copy.
std::vector<std::string> chosen(const PartChoice& choice) {
  std::vector<std::string> texts;
  for (const PartCopy& found : choice.copies)
    texts.push_back(fmt::format("{}@{}", found.part.index, found.disk));
  return texts;
}

TEST(Parts, ThoseOfOneSaveThatHoldEveryPartAreTaken) {
  struct Case {
    const char* what;
    std::vector<PartCopy> found;
    std::vector<std::string> expected;
  };
  const Case cases[] = {
      {"each node its own", {copy(0, 2, 0), copy(1, 2, 1)}, {"0@0", "1@1"}},
      {"hosts swapped", {copy(1, 2, 0), copy(0, 2, 1)}, {"0@1", "1@0"}},
      {"with replicas",
       {copy(0, 2, 0), copy(1, 2, 0), copy(1, 2, 1), copy(0, 2, 1)},
       {"0@0", "0@1", "1@0", "1@1"}},
      {"a disk lost, its replica is here", {copy(0, 2, 0), copy(1, 2, 0)}, {"0@0", "1@0"}},
      {"a damaged copy", {copy(0, 2, 0), copy(1, 2, 1, "2", "bad"), copy(1, 2, 0)}, {"0@0", "1@0"}},
      {"fewer nodes than parts", {copy(0, 3, 0), copy(1, 3, 0), copy(2, 3, 1)}, {"0@0", "1@0", "2@1"}},
      {"the later of two saves",
       {copy(0, 2, 0, "1"), copy(1, 2, 1, "1"), copy(0, 2, 0), copy(1, 2, 1)},
       {"0@0", "1@1"}},
      {"a later save that is not whole", {copy(0, 2, 0, "3"), copy(0, 1, 1, "2")}, {"0@1"}},
      {"a whole one of one node", {copy(0, 1, 1)}, {"0@1"}},
      {"parts of two saves", {copy(0, 2, 0, "1"), copy(1, 2, 1, "2")}, {}},
      {"parts of other counts", {copy(0, 2, 0), copy(1, 3, 1)}, {}},
      {"nothing", {}, {}},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(chosen(choose_parts(c.found, two)), c.expected) << c.what;
  }
  const PartChoice later = choose_parts(cases[6].found, two);
  for (const PartCopy& found : later.copies) EXPECT_EQ(found.part.save, "2");
}

TEST(Parts, WhatIsMissingIsNamedWithItsHost) {
  const auto missing = [](std::vector<PartCopy> found) {
    return choose_parts(std::move(found), two).missing;
  };
  EXPECT_EQ(missing({copy(0, 2, 0)}),
            "part 1 of 2 is on no disk that this job sees; host-a has part 0 (written by host-a)");
  EXPECT_EQ(missing({copy(0, 2, 0), copy(1, 2, 1, "2", "x.h5 is cut short")}),
            "part 1 of 2 host-b: x.h5 is cut short; host-a has part 0 (written by host-a)");
  PartCopy unreadable{
      .part = {.of = 0}, .disk = 1, .directory = "step-00000007", .fault = "MANIFEST.json is damaged"};
  EXPECT_EQ(missing({copy(0, 2, 0), unreadable}),
            "part 1 of 2 is on no disk that this job sees; host-a has part 0 (written by host-a); host-b: "
            "MANIFEST.json is damaged");
  EXPECT_EQ(choose_parts({unreadable}, one_disk(2)).missing, "MANIFEST.json is damaged");
}

/// Part `index` of a model of two weights, one in each part, whose moment is shared between them.
Manifest part_of_two(int index) {
  Manifest manifest;
  manifest.step = 7;
  manifest.part = {index, 2, "s", "host"};
  manifest.run = {{"seed", 1}};
  const std::string file = fmt::format("model-0000{}-of-00002.safetensors", index + 1);
  const std::string state = fmt::format("state/rank-0000{}.h5", index);
  manifest.files = {{"config.json", 2, 9}, {file, 1000, 0}, {state, 1000, 0}};
  const Shape shape{4, 6};
  manifest.tensors[Manifest::Kind::weight] = {
      {fmt::format("w{}", index), shape, DType::f32, {{file, 0, Packing::in_tensor, whole_of(shape), {1}}}}};
  manifest.tensors[Manifest::Kind::first_moment] = {
      {"w0",
       shape,
       DType::f32,
       {{state, 0, Packing::packed, {whole(shape), {index * 10, index == 0 ? 10 : 14}}, {1}}}}};
  return manifest;
}

std::string join_failure(const std::vector<Manifest>& parts) {
  try {
    join_parts(parts, "step-00000007");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.what();
  }
  return "they were joined";
}

TEST(Parts, OneManifestOfAllHoldsEveryFileOnceAndEverySlice) {
  const Manifest whole = join_parts({part_of_two(1), part_of_two(0)}, "step-00000007");
  EXPECT_EQ(whole.step, 7);
  EXPECT_EQ(whole.part, ManifestPart());
  EXPECT_EQ(whole.files.size(), 5u);
  EXPECT_EQ(whole.of(Manifest::Kind::weight).size(), 2u);
  EXPECT_EQ(whole.of(Manifest::Kind::first_moment).at(0).slices.size(), 2u);
  EXPECT_EQ(to_text(parse_manifest(to_text(whole), "joined")), to_text(whole));
}

TEST(Parts, ThatWereNotSavedTogetherOrDoNotAddUpAreRefused) {
  struct Case {
    std::function<void(Manifest&)> change;  // of part 1
    std::string reason;
  };
  const Case cases[] = {
      {[](Manifest&) {}, "they were joined"},
      {[](Manifest& m) { m.part.save = "t"; }, "were not saved together"},
      {[](Manifest& m) { m.part.of = 3; }, "were not saved together"},
      {[](Manifest& m) { m.step = 8; }, "were not saved together"},
      {[](Manifest& m) { m.part.index = 0; }, "part 0 is there twice"},
      {[](Manifest& m) { m.files[0].rest_crc = 8; }, "config.json of part 1 is another"},
      {[](Manifest& m) { m.tensors[Manifest::Kind::first_moment][0].dtype = DType::f16; }, "in another"},
      {[](Manifest& m) { m.tensors[Manifest::Kind::first_moment].clear(); }, "10 of 24 elements"},
      {[](Manifest& m) { m.tensors[Manifest::Kind::first_moment][0].slices[0].slice.range.begin = 9; },
       "overlap"},
  };
  for (const Case& c : cases) {
    Manifest other = part_of_two(1);
    c.change(other);
    const std::string reason = join_failure({part_of_two(0), other});
    EXPECT_NE(reason.find(c.reason), std::string::npos) << reason << "\n  expected: " << c.reason;
  }
  EXPECT_NE(join_failure({part_of_two(0)}).find("1 of its 2 parts"), std::string::npos);
}

TEST(Parts, ALaterSaveHasALaterName) {
  const std::string first = new_save_name();
  EXPECT_EQ(first.find('-'), 16u);
  EXPECT_LE(first, new_save_name());
}

}  // namespace
}  // namespace ptrain
