// Checkpoints in parts on the disks of several hosts: saved under one layout, resumed under others, with
// disks lost, swapped and damaged.
#include <gtest/gtest.h>

#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "tests/io/nodes.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int64_t no_checkpoint = -static_cast<int64_t>(ExitCode::no_checkpoint);

const Mesh pipeline_over_nodes{.pipeline = 2, .data = 1, .tensor = 2};
const std::vector<std::string> two_each = {"a", "a", "b", "b"};

TEST(Nodes, WhatOneLayoutSavedEveryOtherLayoutLoads) {
  struct Layout {
    Mesh mesh;
    std::vector<std::string> hosts;
  };
  const Layout layouts[] = {
      {pipeline_over_nodes, two_each},
      {{.pipeline = 1, .data = 2, .tensor = 2}, two_each},
      {{.pipeline = 1, .data = 1, .tensor = 4}, two_each},
      {{.pipeline = 2, .data = 3, .tensor = 1}, {"a", "b", "b", "a", "c", "c"}},
      {{.pipeline = 1, .data = 5, .tensor = 1}, {"a", "a", "a", "b", "c"}},
  };
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Layout& from : layouts) {
      TemporaryDirectory base;
      save_on({base.path(), from.mesh, from.hosts}, 7, dtype);
      for (const Layout& to : layouts) {
        Nodes nodes{base.path(), to.mesh, to.hosts};
        // Hosts that a layout lacks are lent to its last rank, so that all disks are there.
        for (const char* host : {"a", "b", "c"}) {
          if (!fs::exists(nodes.root(host)) || std::ranges::find(to.hosts, host) != to.hosts.end()) continue;
          nodes.hosts.back() = host;
        }
        EXPECT_EQ(resume_on(nodes), 7) << to_string(from.mesh) << " to " << to_string(to.mesh);
      }
    }
  }
}

TEST(Nodes, ADirectoryHoldsWholeFilesOfItsPartAndTheFullIndex) {
  TemporaryDirectory base;
  const Nodes nodes{base.path(), {.pipeline = 1, .data = 2, .tensor = 2}, two_each};
  save_on(nodes, 7);
  std::set<std::string> tensors;
  int64_t bytes[2] = {};
  int host_number = 0;
  for (const std::string host : {"a", "b"}) {
    const Manifest manifest = open_manifest(nodes.step(host, 7));
    EXPECT_EQ(manifest.part.index, host == "a" ? 0 : 1);
    EXPECT_EQ(manifest.part.of, 2);
    EXPECT_EQ(manifest.part.host, host);
    for (const StoredTensor& tensor : manifest.of(Manifest::Kind::weight)) {
      EXPECT_TRUE(tensors.insert(tensor.name).second) << tensor.name;
      bytes[host_number] += tensor.shape.numel() * 4;
    }
    ++host_number;
    const Json index = read_json(nodes.step(host, 7) / "model.safetensors.index.json");
    EXPECT_EQ(index["weight_map"].size(), pieces().size());
    for (const auto& entry : fs::directory_iterator(nodes.step(host, 7))) {
      if (entry.path().extension() != ".safetensors") continue;
      EXPECT_GT(SafetensorsFile::open(entry.path()).entries().size(), 0u);
    }
  }
  EXPECT_EQ(tensors.size(), pieces().size());
  EXPECT_LE(std::abs(bytes[0] - bytes[1]), 199 * 24 * 4) << "the largest tensor";
}

TEST(Nodes, SwappedHostsAndMoreOfThemGoOn) {
  TemporaryDirectory base;
  save_on({base.path(), pipeline_over_nodes, two_each}, 7);
  EXPECT_EQ(resume_on({base.path(), pipeline_over_nodes, {"b", "b", "a", "a"}}), 7);
  EXPECT_EQ(resume_on({base.path(), {1, 1, 1}, {"a"}}), no_checkpoint);
  EXPECT_EQ(resume_on({base.path(), {2, 3, 1}, {"new", "a", "newer", "b", "b", "new"}}), 7);
  // Both parts on one node, as somebody who copies directories may leave them.
  fs::copy(base.path() / "b/checkpoints/step-00000007", base.path() / "a/checkpoints/replica-00000007-00001",
           fs::copy_options::recursive);
  EXPECT_EQ(resume_on({base.path(), {1, 1, 1}, {"a"}}), 7);
}

TEST(Nodes, AStepThatOneNodeLacksIsPassedOverForTheOneBefore) {
  TemporaryDirectory base;
  const Nodes nodes{base.path(), pipeline_over_nodes, two_each};
  save_on(nodes, 7);
  save_on(nodes, 9);
  fs::remove_all(nodes.step("b", 9));
  EXPECT_EQ(resume_on(nodes), 7);
  // Parts of two saves of one step are not taken for a checkpoint.
  fs::copy(nodes.step("b", 7), base.path() / "kept", fs::copy_options::recursive);
  save_on(nodes, 9);
  save_on(nodes, 7);
  fs::remove_all(nodes.step("a", 9));
  fs::remove_all(nodes.step("b", 7));
  fs::rename(base.path() / "kept", nodes.step("b", 7));
  std::string reason;
  EXPECT_EQ(resume_on(nodes, &reason), no_checkpoint);
  EXPECT_NE(reason.find("is on no disk that this job sees"), std::string::npos) << reason;
}

TEST(Nodes, WhatIsMissingOrDamagedIsNamedWithItsHost) {
  TemporaryDirectory base;
  const Nodes nodes{base.path(), pipeline_over_nodes, two_each};
  save_on(nodes, 7);
  std::string reason;
  fs::rename(nodes.step("b", 7), base.path() / "away");
  EXPECT_EQ(resume_on(nodes, &reason), no_checkpoint);
  EXPECT_NE(reason.find("part 1 of 2 is on no disk that this job sees; a has part 0 (written by a)"),
            std::string::npos)
      << reason;
  fs::rename(base.path() / "away", nodes.step("b", 7));
  const fs::path state = nodes.step("b", 7) / "state/rank-00002.h5";
  fs::resize_file(state, fs::file_size(state) - 1);
  EXPECT_EQ(resume_on(nodes, &reason), no_checkpoint);
  EXPECT_NE(reason.find("b: " + state.string()), std::string::npos) << reason;
}

/// Flips a byte in the middle of every state file of a directory.
void damage_state(const fs::path& directory) {
  for (const auto& entry : fs::directory_iterator(directory / "state"))
    damage(entry.path(), static_cast<int64_t>(fs::file_size(entry.path())) - 9);
}

TEST(Nodes, ADamagedPartIsReadFromItsCopyOnAnotherDiskOrTheStepBeforeIsTaken) {
  TemporaryDirectory base;
  const Nodes nodes{base.path(), pipeline_over_nodes, two_each};
  save_on(nodes, 7);
  save_on(nodes, 9);
  fs::copy(nodes.step("b", 9), nodes.root("a") / replica_name(9, 1), fs::copy_options::recursive);
  damage_state(nodes.step("b", 9));
  EXPECT_EQ(resume_on(nodes), 9);
  damage_state(nodes.root("a") / replica_name(9, 1));
  EXPECT_EQ(resume_on(nodes), 7);
}

TEST(Nodes, ALostDiskIsSurvivedWhereTheNextNodeHasACopy) {
  TemporaryDirectory base;
  const Nodes nodes{base.path(), {.pipeline = 1, .data = 2, .tensor = 2}, two_each};
  save_on(nodes, 7);
  fs::copy(nodes.step("b", 7), nodes.root("a") / replica_name(7, 1), fs::copy_options::recursive);
  fs::remove_all(nodes.root("b"));
  EXPECT_EQ(resume_on(nodes), 7);
}

}  // namespace
}  // namespace ptrain
