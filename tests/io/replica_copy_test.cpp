#include "src/io/replica_copy.h"

#include <gtest/gtest.h>

#include "src/io/extents.h"
#include "src/io/file.h"
#include "tests/io/nodes.h"
#include "tests/support/files.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

TEST(ReplicaCopy, AllBytesOfFilesAreCutIntoChunksOnce) {
  const std::vector<CopiedFile> files = {{"a", 0}, {"b", chunk_bytes}, {"c", 2 * chunk_bytes + 5}, {"d", 1}};
  EXPECT_EQ(chunks_of_files(files), (std::vector<CopiedChunk>{{1, 0, chunk_bytes},
                                                              {2, 0, chunk_bytes},
                                                              {2, chunk_bytes, chunk_bytes},
                                                              {2, 2 * chunk_bytes, 5},
                                                              {3, 0, 1}}));
  EXPECT_TRUE(chunks_of_files({}).empty());
}

/// Copies the parts of a step; `bytes` at each call of advance().
void copy_step(const Nodes& nodes, int64_t step, int64_t bytes, int64_t keep = 2) {
  nodes.run([&](const Storage& storage, const fs::path& root) {
    if (storage.firsts() == nullptr) return;
    ReplicaCopy copy(*storage.firsts(), root, keep);
    copy.begin(step, storage.disk());
    EXPECT_FALSE(copy.is_idle());
    for (int i = 0; i < 5; ++i) copy.advance(bytes, 0);
    copy.finish();
    EXPECT_TRUE(copy.is_idle());
  });
}

TEST(ReplicaCopy, TheNextDiskHoldsTheSameBytesAndALostDiskIsSurvived) {
  const Nodes layouts[] = {{{}, {.pipeline = 2, .data = 1, .tensor = 2}, {"a", "a", "b", "b"}},
                           {{}, {.pipeline = 1, .data = 5, .tensor = 1}, {"a", "b", "b", "c", "c"}}};
  for (Nodes nodes : layouts) {
    TemporaryDirectory base;
    nodes.base = base.path();
    save_on(nodes, 7);
    copy_step(nodes, 7, 1);
    const std::string last = nodes.hosts.back();
    const fs::path copy = nodes.root("a") / replica_name(7, last == "b" ? 1 : 2);
    size_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(nodes.step(last, 7))) {
      if (!entry.is_regular_file()) continue;
      const fs::path other = copy / fs::relative(entry.path(), nodes.step(last, 7));
      EXPECT_EQ(read_text(entry.path(), 1 << 30), read_text(other, 1 << 30)) << other;
      ++files;
    }
    EXPECT_GT(files, 3u);
    for (const char* lost : {"a", "b"}) {
      fs::rename(nodes.root(lost), base.path() / "away");
      EXPECT_EQ(resume_on(nodes), 7) << lost;
      fs::remove_all(nodes.root(lost));
      fs::rename(base.path() / "away", nodes.root(lost));
    }
  }
}

TEST(ReplicaCopy, CopiesOfOldStepsGoAndHalfOnesAreNeverFound) {
  TemporaryDirectory base;
  const Nodes nodes{base.path(), {.pipeline = 2, .data = 1, .tensor = 1}, {"a", "b"}};
  fs::create_directories(nodes.root("a") / ".replica-replica-00000001-00001");
  for (const int64_t step : {1, 2, 3}) {
    save_on(nodes, step);
    copy_step(nodes, step, 1 << 20);
  }
  EXPECT_EQ(names_in(nodes.root("a")),
            (std::set<std::string>{"step-00000002", "step-00000003", "replica-00000002-00001",
                                   "replica-00000003-00001"}));
}

TEST(ReplicaCopy, APartThatCannotBeReadLeavesNoCopyAndTheCheckpointStays) {
  TemporaryDirectory base;
  const Nodes nodes{base.path(), {.pipeline = 2, .data = 1, .tensor = 1}, {"a", "b"}};
  save_on(nodes, 7);
  fs::remove(nodes.step("b", 7) / "MANIFEST.json");
  std::ofstream(nodes.root("b") / ".replica-replica-00000007-00000") << "in the way";
  copy_step(nodes, 7, 1 << 20);
  EXPECT_EQ(names_in(nodes.root("a")), (std::set<std::string>{"step-00000007"}));
  EXPECT_EQ(names_in(nodes.root("b")), (std::set<std::string>{"step-00000007", "replica-00000007-00000"}));
  EXPECT_TRUE(open_manifest(nodes.step("a", 7)).step == 7);
}

}  // namespace
}  // namespace ptrain
