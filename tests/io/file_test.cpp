#include "src/io/file.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <functional>

#include "kernels/base/error.h"
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

}  // namespace
}  // namespace ptrain
