#include "src/io/part_writers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "tests/io/checkpoint_state.h"

namespace ptrain {
namespace {

Disks disks_of(const std::vector<int>& of_rank) {
  Disks disks{of_rank, {}};
  for (int disk = 0; disk <= *std::max_element(of_rank.begin(), of_rank.end()); ++disk)
    disks.names.push_back(fmt::format("host-{}", disk));
  return disks;
}

/// Ranks in blocks of `per_host`.
Disks in_blocks(int ranks, int per_host) {
  std::vector<int> of_rank;
  for (int rank = 0; rank < ranks; ++rank) of_rank.push_back(rank / per_host);
  return disks_of(of_rank);
}

TEST(PartWriters, ADiskMayWriteAPositionWhoseTensorGroupItHolds) {
  struct Case {
    Mesh mesh;
    Disks disks;
    std::vector<std::vector<int>> expected;  // of each position
  };
  const Case cases[] = {
      {{.pipeline = 2, .data = 1, .tensor = 2}, in_blocks(4, 2), {{0}, {1}}},
      {{.pipeline = 1, .data = 2, .tensor = 2}, in_blocks(4, 2), {{0, 1}}},
      {{.pipeline = 2, .data = 2, .tensor = 2}, in_blocks(8, 4), {{0}, {1}}},
      {{.pipeline = 2, .data = 2, .tensor = 2}, in_blocks(8, 2), {{0, 1}, {2, 3}}},
      {{.pipeline = 1, .data = 1, .tensor = 4},
       in_blocks(4, 2),
       {{0, 1}}},  // none holds all: those with some
      {{.pipeline = 1, .data = 2, .tensor = 2}, disks_of({0, 0, 0, 1}), {{0}}},
      {{.pipeline = 3, .data = 1, .tensor = 1}, disks_of({0, 1, 0}), {{0}, {1}, {0}}},
      {{.pipeline = 2, .data = 1, .tensor = 1}, in_blocks(2, 2), {{0}, {0}}},
  };
  for (const Case& c : cases) {
    for (size_t position = 0; position < c.expected.size(); ++position)
      EXPECT_EQ(disks_of_position(c.mesh, static_cast<int>(position), c.disks), c.expected[position])
          << to_string(c.mesh) << " position " << position;
  }
}

/// A model of `groups` stages with seven uneven tensors each.
std::vector<HfTensor> tensors_of(int groups) {
  std::vector<HfTensor> tensors;
  for (int group = 0; group < groups; ++group) {
    for (int i = 0; i < 7; ++i)
      tensors.push_back({fmt::format("{}.{}", group, i), Shape{11 + 5 * i + group, 3}, DType::bf16, group});
  }
  return tensors;
}

TEST(PartWriters, EveryTensorIsDealtOnceToADiskThatHoldsItAndDisksGetAboutTheSame) {
  for (const Mesh mesh : {Mesh{1, 1, 1}, Mesh{2, 2, 2}, Mesh{4, 3, 2}, Mesh{2, 64, 8}, Mesh{8, 64, 8}}) {
    for (const int per_host : {1, 2, 3, 8, 4096}) {
      const Disks disks = in_blocks(mesh.world(), per_host);
      const int groups = 2 * mesh.pipeline;  // two stages a position
      std::vector<int> positions;
      for (int group = 0; group < groups; ++group) positions.push_back(group % mesh.pipeline);
      std::vector<HfTensor> tensors = tensors_of(groups);
      deal_to_disks(tensors, positions, mesh, disks);
      ASSERT_EQ(tensors.size(), 7u * groups);
      std::set<std::string> names;
      std::map<int, int64_t> bytes_of;
      for (const HfTensor& tensor : tensors) {
        names.insert(tensor.name);
        bytes_of[tensor.part] += tensor.shape.numel() * 2;
        const std::vector<int> may =
            disks_of_position(mesh, positions[static_cast<size_t>(tensor.group)], disks);
        EXPECT_TRUE(std::ranges::find(may, tensor.part) != may.end())
            << to_string(mesh) << " " << tensor.name;
      }
      EXPECT_EQ(names.size(), tensors.size());
      if (disks.count() == 1 || mesh.pipeline > 1) continue;
      const int64_t largest = tensors.back().shape.numel() * 2 + 100;
      for (const auto& [disk, bytes] : bytes_of) EXPECT_LE(bytes, bytes_of.begin()->second + largest);
      // No file is of two parts, and a part's own plan holds its tensors and the index of all.
      const HfPlan plan = plan_hf_files(tensors);
      size_t files = 0, places = 0;
      for (int disk = 0; disk < disks.count(); ++disk) {
        const HfPlan own = plan_of_part(plan, disk);
        files += own.files.size();
        places += own.places.size();
        EXPECT_EQ(own.index_text, plan.index_text);
        for (const auto& [name, place] : own.places)
          EXPECT_EQ(own.files[place.file].layout.entries[place.entry].name, name);
      }
      EXPECT_EQ(files, plan.files.size());
      EXPECT_EQ(places, tensors.size());
    }
  }
}

TEST(PartWriters, WeightsGoWhereTheyAreWrittenAndMomentsStay) {
  const Mesh mesh{.pipeline = 1, .data = 3, .tensor = 2};
  const Disks disks = disks_of({0, 0, 1, 1, 1, 2});
  std::map<std::string, int> part_of;
  for (const Piece& piece : pieces()) part_of[piece.name] = static_cast<int>(part_of.size()) % 3;
  std::vector<int64_t> weights(3);
  std::mutex mutex;
  run_ranks(6, [&](Communicator& world) {
    const Storage storage(world, StorageKind::per_node, disks);
    const State state = state_to_write(mesh, world.rank(), 7);
    int64_t own = 0, kept = 0, written = 0;
    for (const StateSlice& slice : state.slices) own += slice.slice.numel();
    const MovedSlices moved(storage, state.slices, part_of);
    for (const StateSlice& slice : moved.slices()) {
      ASSERT_EQ(bool(slice.first_moment), bool(slice.second_moment));
      if (slice.first_moment) kept += slice.slice.numel();
      if (!slice.weight) continue;
      EXPECT_EQ(part_of.at(slice.name), storage.disk());
      written += slice.slice.numel();
      const auto* found = slice.weight.as<float>();
      EXPECT_EQ(std::vector<float>(found, found + slice.slice.numel()),
                values_of({slice.name, slice.shape, DType::f32, {}}, slice.slice, 0, 7));
    }
    EXPECT_EQ(kept, own);
    const std::lock_guard lock(mutex);
    weights[static_cast<size_t>(storage.disk())] += written;
  });
  std::vector<int64_t> expected(3);
  for (const Piece& piece : pieces())
    expected[static_cast<size_t>(part_of[piece.name])] += piece.shape.numel();
  EXPECT_EQ(weights, expected);
}

}  // namespace
}  // namespace ptrain
