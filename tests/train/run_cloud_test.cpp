// Checkpoints of hosts with disks of their own: each sends its part, and the parts come back to as many disks
// as there are then.
#include "src/train/run_cloud.h"

#include <gtest/gtest.h>

#include "parallel/comm/agree.h"
#include "src/io/file.h"
#include "src/io/find.h"
#include "src/io/json.h"
#include "tests/support/fake_s3.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

class RunsCloud : public ::testing::Test {
 protected:
  fs::path disk(int number) const { return directory_.path() / ("disk" + std::to_string(number)); }

  /// A part of step 500 without tensors, as a host has it.
  static void write_part(const fs::path& path, int part, int parts) {
    fs::create_directories(path);
    write_text(path / "config.json", "{}");
    Manifest manifest;
    manifest.step = 500;
    if (parts > 1) manifest.part = {.index = part, .of = parts, .save = "s", .host = std::to_string(part)};
    manifest.files.push_back(describe_file(path, "config.json"));
    write_text(path / manifest_name, to_text(manifest));
  }

  /// `work` with a cloud on each of so many ranks, each a host with a disk of its own.
  void on_disks(int count, const std::function<void(RunCloud&, int)>& work) const {
    const LoadedConfig loaded = load_config_text(
        "output: o\nmodel: {path: m}\ndata: {train: t}\ncheckpoint: {upload: s3://b/run}\n", "run.yaml", {});
    run_ranks(count, [&](Communicator& world) {
      std::vector<std::string> hosts;
      for (int rank = 0; rank < count; ++rank) hosts.push_back("host" + std::to_string(rank));
      const Storage storage(world, count > 1 ? StorageKind::per_node : StorageKind::shared,
                            disk_of_each_host(hosts, count));
      RunCloud cloud(world);
      cloud.open(loaded, disk(world.rank()), storage, fake_.search_path());
      work(cloud, world.rank());
    });
  }

  /// Step 500 in as many parts, from as many hosts, to S3.
  void put_up(int parts) const {
    on_disks(parts, [&](RunCloud& cloud, int rank) {
      const fs::path path = disk(rank) / "checkpoints/step-00000500";
      write_part(path, rank, parts);
      cloud.add_checkpoint(path);
      cloud.finish_stopped();
      EXPECT_TRUE(cloud.may_delete(path));
    });
  }

  const FakeS3 fake_;
  const TemporaryDirectory directory_;
};

TEST_F(RunsCloud, PartsGoUpFromTheirDisksAndComeBackToThem) {
  put_up(3);
  for (int part = 0; part < 3; ++part) {
    EXPECT_TRUE(fs::exists(
        fake_.object(fmt::format("b/run/checkpoints/step-00000500/part-{}-of-3/MANIFEST.json", part))));
    fs::remove_all(disk(part));
  }
  on_disks(3, [&](RunCloud& cloud, int rank) {
    EXPECT_FALSE(cloud.fetch_newer_checkpoint(500)) << "none of a later step";
    EXPECT_TRUE(cloud.fetch_newer_checkpoint(499));
    EXPECT_EQ(open_manifest(disk(rank) / "checkpoints/step-00000500").part.index, rank);
  });
  for (int part = 0; part < 3; ++part) fs::remove_all(disk(part));
  on_disks(2, [&](RunCloud& cloud, int rank) {
    EXPECT_TRUE(cloud.fetch_newer_checkpoint(0));
    EXPECT_EQ(open_manifest(disk(rank) / "checkpoints/step-00000500").part.index, rank);
    EXPECT_EQ(fs::exists(disk(rank) / "checkpoints" / replica_name(500, 2)), rank == 0);
  });
}

TEST_F(RunsCloud, ADamagedPartMakesAllTakeTheStepBefore) {
  put_up(2);
  write_text(fake_.object("b/run/checkpoints/step-00000500/part-1-of-2/config.json"), "[]");
  for (int part = 0; part < 2; ++part) fs::remove_all(disk(part));
  EXPECT_THROW(on_disks(2, [&](RunCloud& cloud, int) { cloud.fetch_newer_checkpoint(0); }), AgreedError);
  on_disks(2, [&](RunCloud& cloud, int) { EXPECT_FALSE(cloud.fetch_newer_checkpoint(3)); });
}

TEST_F(RunsCloud, WithoutS3InTheConfigurationNothingIsDone) {
  run_ranks(2, [&](Communicator& world) {
    const LoadedConfig loaded =
        load_config_text("output: o\nmodel: {path: m}\ndata: {train: t}\n", "run.yaml", {});
    RunCloud cloud(world);
    cloud.open(loaded, disk(world.rank()), Storage(world), "/nowhere");
    EXPECT_EQ(cloud.fetch_inputs(loaded.config).model.path, "m");
    EXPECT_FALSE(cloud.fetch_newer_checkpoint(0));
    cloud.add_checkpoint("x");
    EXPECT_TRUE(cloud.may_delete("x"));
    cloud.finish("x", "y");
  });
  EXPECT_TRUE(fake_.calls().empty());
}

}  // namespace
}  // namespace ptrain
