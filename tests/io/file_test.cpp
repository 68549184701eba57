#include "src/io/file.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "kernels/base/error.h"
#include "src/io/appended_file.h"
#include "src/io/hdf5.h"
#include "src/io/json.h"
#include "tests/support/file_limit.h"
#include "tests/support/fixtures.h"

namespace ptrain {
namespace {

TEST(File, ErrorsSayTheReasonOfTheCallThatFailedAndNotThatOfAnEarlierOne) {
  const TemporaryDirectory directory;
  const struct {
    std::function<void()> work;
    std::string reason;
  } cases[] = {
      {[&] { rename_path(directory.path() / "absent", directory.path() / "b"); },
       "No such file or directory"},
      {[&] { File::open(directory.path() / "absent"); }, "No such file or directory"},
      {[&] { File::open(directory.path()); }, "not a regular file"},
      {[&] { File::create(directory.path() / "absent/a", 1); }, "No such file or directory"},
      {[&] { File().sync(); }, "Bad file descriptor"},
      {[&] { sync_directory(directory.path() / "absent"); }, "No such file or directory"},
  };
  for (const auto& c : cases) {
    errno = EDOM;
    try {
      c.work();
      ADD_FAILURE() << c.reason;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(c.reason), std::string::npos) << error.what();
    }
  }
}

TEST(File, NothingIsWrittenThroughASymbolicLink) {
  const TemporaryDirectory directory;
  const std::filesystem::path victim = directory.path() / "victim", link = directory.path() / "link";
  write_text(victim, "kept");
  std::filesystem::create_symlink(victim, link);
  std::filesystem::create_symlink(victim, directory.path() / "text.json.tmp");
  const std::function<void()> cases[] = {
      [&] { File::create(link, 1); },
      [&] { AppendedFile(link, AppendedFile::Start::go_on); },
      [&] { write_text(directory.path() / "text.json", "other"); },
      [&] { Hdf5Writer writer(link); },
  };
  for (const auto& work : cases) {
    try {
      work();
      ADD_FAILURE() << "written through a link";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::resources);
      EXPECT_NE(std::string(error.what()).find("it is a symbolic link"), std::string::npos) << error.what();
    }
    EXPECT_EQ(read_text(victim, 100), "kept");
  }
  EXPECT_THROW(File::open_for_writing(link), Error);
}

TEST(AppendedFile, WhatTheDiskDoesNotTakeWaitsAndIsWrittenLater) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "rows";
  AppendedFile file(path, AppendedFile::Start::anew);
  file.append("one\n");
  {
    const FileLimit limit(6);
    file.append("two\n");  // half of it finds room
    file.append("three\n");
    EXPECT_EQ(file.waiting_bytes(), 8);
    EXPECT_EQ(read_text(path, 100), "one\ntw");
  }
  file.append("four\n");
  EXPECT_EQ(file.waiting_bytes(), 0);
  EXPECT_EQ(read_text(path, 100), "one\ntwo\nthree\nfour\n");
  {
    const FileLimit limit(1);
    file.append("five\n");
  }
  file = {};  // its end tries once more
  EXPECT_EQ(read_text(path, 100), "one\ntwo\nthree\nfour\nfive\n");
  EXPECT_THROW(AppendedFile(path, AppendedFile::Start::anew), Error);
}

TEST(AppendedFile, MoreThanMemoryShallHoldIsAnError) {
  const TemporaryDirectory directory;
  AppendedFile file(directory.path() / "rows", AppendedFile::Start::anew);
  const FileLimit limit(0);
  const std::string record(size_t{1} << 20, 'x');
  for (int64_t bytes = 0; bytes < AppendedFile::most_waiting_bytes; bytes += std::ssize(record))
    file.append(record);
  EXPECT_THROW(file.append(record), Error);
}

}  // namespace
}  // namespace ptrain
