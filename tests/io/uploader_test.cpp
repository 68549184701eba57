// The thread that uploads: it holds nobody up, and keeps here what is not there.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/upload.h"
#include "tests/support/fake_s3.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

class Uploads : public ::testing::Test {
 protected:
  fs::path step(int number) const {
    const fs::path path = directory_.path() / ("step-" + std::to_string(number));
    if (fs::create_directory(path)) {
      write_text(path / "a.safetensors", std::to_string(number));
      write_text(path / "MANIFEST.json", "of " + std::to_string(number));
    }
    return path;
  }
  std::unique_ptr<Uploader> uploader(int64_t most_local = 4, double try_s = 60) const {
    const S3 s3(find_s3_tool(fake_.search_path(), ""), {.tries = 2, .first_pause_s = 0.01, .try_s = try_s});
    return std::make_unique<Uploader>(s3, UploaderOptions{.place = "s3://b/run", .most_local = most_local});
  }
  static void add(Uploader& uploader, const fs::path& path) {
    uploader.add(path, path.filename().string(), "MANIFEST.json");
  }
  static bool wait_for(const Uploader& uploader) {
    const auto until = Clock::now() + 60s;
    while (!uploader.is_idle() && Clock::now() < until) std::this_thread::sleep_for(5ms);
    return uploader.is_idle();
  }
  /// Until the first copy up has begun, and hangs.
  void wait_for_a_copy() const {
    while (fake_.has_plan()) std::this_thread::sleep_for(5ms);
  }
  bool is_there(int number) const {
    return fs::exists(fake_.object("b/run/step-" + std::to_string(number) + "/MANIFEST.json"));
  }

  const FakeS3 fake_;
  const TemporaryDirectory directory_;
};

TEST_F(Uploads, WhatIsAddedArrivesAndMayThenBeDeleted) {
  const auto uploads = uploader();
  EXPECT_TRUE(uploads->may_delete(step(7))) << "never added";
  for (int number : {1, 2, 3}) add(*uploads, step(number));
  EXPECT_TRUE(wait_for(*uploads));
  for (int number : {1, 2, 3}) {
    EXPECT_TRUE(is_there(number));
    EXPECT_TRUE(uploads->may_delete(step(number)));
  }
  EXPECT_TRUE(uploads->failures().empty());
  EXPECT_EQ(uploads->waiting(), "");
}

TEST_F(Uploads, NobodyWaitsWhileAProgramHangs) {
  fake_.set_plan({"hang"});
  auto uploads = uploader();
  std::vector<double> seconds;
  for (int number = 1; number <= 50; ++number) {
    const fs::path path = step(number);
    const auto begin = Clock::now();
    add(*uploads, path);
    EXPECT_FALSE(uploads->is_idle());
    uploads->may_delete(path);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::ranges::sort(seconds);
  EXPECT_LT(seconds[25], 0.01) << "the goal is 1 ms";
  RecordProperty("median_us", static_cast<int>(seconds[25] * 1e6));
  const auto begin = Clock::now();
  uploads.reset();  // the hanging program goes with it
  EXPECT_LT(Clock::now() - begin, 30s);
}

TEST_F(Uploads, WhatIsNotThereYetStaysHereUpToABound) {
  fake_.set_plan({"hang"});
  const auto uploads = uploader(3);
  for (int number = 1; number <= 5; ++number) add(*uploads, step(number));
  wait_for_a_copy();
  for (int number : {3, 4, 5}) EXPECT_FALSE(uploads->may_delete(step(number))) << number;
  EXPECT_TRUE(uploads->may_delete(step(2))) << "three newer ones wait";
  EXPECT_TRUE(uploads->may_delete(step(1))) << "the one under way is given up";
  EXPECT_TRUE(uploads->may_delete(step(1))) << "and stays so";
  for (int number : {1, 2}) fs::remove_all(step(number));
  EXPECT_TRUE(wait_for(*uploads)) << "the others go on";
  EXPECT_TRUE(is_there(3) && is_there(4) && is_there(5));
  EXPECT_FALSE(is_there(1) || is_there(2));
  EXPECT_TRUE(uploads->failures().empty());
}

TEST_F(Uploads, AFailureIsKeptAndTriedAgainWhenAsked) {
  fake_.set_plan({"fail", "fail"});
  const auto uploads = uploader();
  add(*uploads, step(1));
  EXPECT_TRUE(wait_for(*uploads));
  ASSERT_EQ(uploads->failures().size(), 1u);
  EXPECT_NE(uploads->failures()[0].find("RequestError"), std::string::npos);
  EXPECT_FALSE(uploads->may_delete(step(1)));
  uploads->try_again();
  EXPECT_TRUE(wait_for(*uploads));
  EXPECT_TRUE(uploads->failures().empty());
  EXPECT_TRUE(is_there(1));
}

TEST_F(Uploads, AFailureOfWhatIsDeletedIsNone) {
  fake_.set_plan({"fail", "fail"});
  const auto uploads = uploader();
  add(*uploads, step(1));
  EXPECT_TRUE(wait_for(*uploads));
  fs::remove_all(step(1));
  EXPECT_TRUE(uploads->failures().empty());
}

TEST_F(Uploads, TheSameStepOnceMoreReplacesTheOneUnderWay) {
  fake_.set_plan({"hang"});
  const auto uploads = uploader();
  add(*uploads, step(1));
  wait_for_a_copy();
  write_text(step(1) / "a.safetensors", "another past");
  add(*uploads, step(1));
  EXPECT_TRUE(wait_for(*uploads));
  EXPECT_EQ(read_text(fake_.object("b/run/step-1/a.safetensors"), 99), "another past");
}

}  // namespace
}  // namespace ptrain
