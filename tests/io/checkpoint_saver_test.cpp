// Saving while the caller goes on: the same bytes, one at a time, and what failures leave behind.
#include "src/io/checkpoint_saver.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "kernels/base/fault.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/io/checkpoint_state.h"
#include "tests/support/files.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Faults for the length of a test.
struct Armed {
  explicit Armed(std::string_view spec) { fault::arm(spec, 0); }
  ~Armed() { fault::arm("", 0); }
};

/// Goes on as a run's steps do until the save is over; how often it was asked.
int go_on(Communicator& world, CheckpointSaver& saver) {
  int steps = 0;
  for (; !saver.is_idle(); ++steps) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    saver.advance(over_ranks(world, saver.progress()));
  }
  return steps;
}

std::string all_of(const fs::path& path) {
  return read_text(path, 1 << 24);
}

/// What a manifest says but for HDF5's own bytes, which hold the time.
Json tensors_of(const fs::path& checkpoint) {
  return to_json(open_manifest(checkpoint).tensors);
}

TEST(CheckpointSaver, BehindTheCallersBackItWritesWhatItWritesAtOnce) {
  const Mesh mesh{2, 1, 2};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    TemporaryDirectory at_once, behind;
    save(mesh, request_for(at_once.path(), 5, dtype));
    run_ranks(mesh.world(), [&](Communicator& world) {
      const State state = state_to_write(mesh, world.rank(), 5);
      CheckpointSaver saver(world, {.group = world});
      saver.begin(request_for(behind.path(), 5, dtype), state.slices);
      EXPECT_FALSE(saver.is_idle());
      EXPECT_FALSE(saver.take_outcome().has_value());
      EXPECT_GE(go_on(world, saver), 4);  // prepare, write, commit, clean
      const auto outcome = saver.take_outcome();
      ASSERT_TRUE(outcome.has_value());
      EXPECT_FALSE(outcome->error.has_value());
      EXPECT_EQ(outcome->step, 5);
      EXPECT_EQ(outcome->path, behind.path() / checkpoint_name(5));
      EXPECT_FALSE(saver.take_outcome().has_value());
    });
    const fs::path a = at_once.path() / checkpoint_name(5), b = behind.path() / checkpoint_name(5);
    EXPECT_EQ(all_of(a / "model.safetensors"), all_of(b / "model.safetensors"));
    EXPECT_EQ(tensors_of(a), tensors_of(b));
    std::vector<std::string> faults;
    verify_checkpoint(b, open_manifest(b), [&](const std::string& fault) { faults.push_back(fault); });
    EXPECT_TRUE(faults.empty());
  }
}

TEST(CheckpointSaver, TheCallerGoesOnWhileTheDiskIsSlow) {
  const Mesh mesh{1, 1, 2};
  for (const char* point : {"open", "after_shard", "before_manifest"}) {
    TemporaryDirectory root;
    const Armed slow(fmt::format("slow400@{}", point));
    run_ranks(mesh.world(), [&](Communicator& world) {
      const State state = state_to_write(mesh, world.rank(), 1);
      CheckpointSaver saver(world, {.group = world});
      saver.begin(request_for(root.path(), 1), state.slices);
      EXPECT_GE(go_on(world, saver), 8) << point;  // 80 or so; every step waited for would be 4
      EXPECT_FALSE(saver.take_outcome()->error.has_value());
    });
    EXPECT_EQ(find_newest(root.path())->step, 1);
  }
}

TEST(CheckpointSaver, OneUnderWayCanBeDrivenToItsEnd) {
  const Mesh mesh{2, 1, 1};
  TemporaryDirectory root;
  run_ranks(mesh.world(), [&](Communicator& world) {
    CheckpointSaver saver(world, {.group = world});
    for (const int64_t step : {1, 2, 3}) {
      const State state = state_to_write(mesh, world.rank(), step);
      saver.begin(request_for(root.path(), step), state.slices);
      // Wherever it is by then.
      for (int64_t i = 0; i < step; ++i) saver.advance(over_ranks(world, saver.progress()));
      saver.finish();
      EXPECT_TRUE(saver.is_idle());
      EXPECT_FALSE(saver.take_outcome()->error.has_value());
    }
    const State state = state_to_write(mesh, world.rank(), 4);
    saver.begin(request_for(root.path(), 4), state.slices);
    EXPECT_THROW(saver.begin(request_for(root.path(), 5), state.slices), Error);
    saver.finish();
  });
  EXPECT_EQ(find_newest(root.path())->step, 4);
}

TEST(CheckpointSaver, AFailureOfOneRankIsKnownToAllAndTheNextSaveSucceeds) {
  const Mesh mesh{1, 1, 3};
  for (const char* fault : {"eio@mid_write:step2:nth1", "eio@before_fsync:step2:nth1"}) {
    for (const bool is_at_once : {false, true}) {
      TemporaryDirectory root;
      const Armed armed(fault);
      std::atomic<int> speakers = 0;
      run_ranks(mesh.world(), [&](Communicator& world) {
        CheckpointSaver saver(world, {.group = world});
        for (const int64_t step : {1, 2, 3}) {
          const State state = state_to_write(mesh, world.rank(), step);
          if (is_at_once) {
            saver.save(request_for(root.path(), step), state.slices);
          } else {
            saver.begin(request_for(root.path(), step), state.slices);
            go_on(world, saver);
          }
          const auto outcome = saver.take_outcome();
          ASSERT_TRUE(outcome.has_value());
          EXPECT_EQ(outcome->error.has_value(), step == 2);
          if (step != 2) continue;
          EXPECT_EQ(outcome->error->code(), ExitCode::resources);
          const std::string text = outcome->error->what();
          EXPECT_NE(text.find((root.path() / ".tmp-step-00000002").string()), std::string::npos) << text;
          EXPECT_NE(text.find("needs "), std::string::npos) << text;
          EXPECT_NE(text.find(" are free"), std::string::npos) << text;
          speakers += outcome->error->is_speaker();
          if (world.rank() == 0) {
            EXPECT_EQ(names_in(root.path()), (std::set<std::string>{"step-00000001"}));
          }
          world.barrier();
        }
      });
      EXPECT_EQ(speakers, 1);
      EXPECT_EQ(names_in(root.path()), (std::set<std::string>{"step-00000001", "step-00000003"}));
      std::vector<std::string> faults;
      const fs::path newest = root.path() / checkpoint_name(3);
      verify_checkpoint(newest, open_manifest(newest), [&](const std::string& f) { faults.push_back(f); });
      EXPECT_TRUE(faults.empty());
    }
  }
}

TEST(CheckpointSaver, ADefectIsThrownAndNotTakenForAFullDisk) {
  TemporaryDirectory root;
  run_ranks(2, [&](Communicator& world) {
    State state = state_to_write(Mesh{1, 1, 2}, world.rank(), 2);
    if (world.rank() == 1) state.slices[0].name = "unknown";
    CheckpointSaver saver(world, {.group = world});
    saver.begin(request_for(root.path(), 2), state.slices);
    try {
      go_on(world, saver);
      ADD_FAILURE();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::defect);
    }
  });
  EXPECT_EQ(find_newest(root.path()), std::nullopt);
}

TEST(CheckpointSaver, WhatIsLeftUnderWayIsNoCheckpointAndTheNextSaveSweepsItAway) {
  TemporaryDirectory root;
  const Mesh mesh{1, 1, 2};
  {
    const Armed slow("slow200@after_shard");
    run_ranks(mesh.world(), [&](Communicator& world) {
      const State state = state_to_write(mesh, world.rank(), 1);
      CheckpointSaver saver(world, {.group = world});
      saver.begin(request_for(root.path(), 1), state.slices);
      for (int i = 0; i < 3; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        saver.advance(over_ranks(world, saver.progress()));
      }
    });
  }
  EXPECT_EQ(find_newest(root.path()), std::nullopt);
  save(mesh, request_for(root.path(), 2));
  EXPECT_EQ(names_in(root.path()), (std::set<std::string>{"step-00000002"}));
}

TEST(CheckpointSaver, GroupsOfRanksWriteDirectoriesOfTheirOwn) {
  const Mesh mesh{2, 1, 2};  // two stages of two ranks
  TemporaryDirectory roots;
  run_ranks(mesh.world(), [&](Communicator& world) {
    const int stage = mesh.coordinate_of(world.rank()).pipeline;
    const auto node = world.split(stage, world.rank());
    const fs::path root = roots.path() / std::to_string(stage);
    SaveRequest request = request_for(root, 4);
    for (HfTensor& tensor : request.tensors)
      tensor.part = tensor.group = stage_of({tensor.name, tensor.shape, DType::f32, {}}, mesh);
    request.save = "one";
    const State state = state_to_write(mesh, world.rank(), 4);
    CheckpointSaver saver(world, {.group = *node, .index = stage, .of = 2, .host = "here"});
    saver.begin(request, state.slices);
    go_on(world, saver);
    EXPECT_FALSE(saver.take_outcome()->error.has_value());
  });
  size_t tensors = 0;
  for (const int stage : {0, 1}) {
    const Manifest manifest = open_manifest(roots.path() / std::to_string(stage) / checkpoint_name(4));
    EXPECT_EQ(manifest.part, (ManifestPart{stage, 2, "one", "here"}));
    tensors += manifest.of(Manifest::Kind::weight).size();
  }
  EXPECT_EQ(tensors, pieces().size());
}

TEST(CheckpointSaver, TooLittleRoomIsFoundBeforeTheFirstByte) {
  // More than any disk has: the tensors are only declared, since nothing comes to be written.
  TemporaryDirectory root;
  run_ranks(1, [&](Communicator& world) {
    const Shape shape{int64_t{1} << 24, int64_t{1} << 24};
    float nothing = 0;
    const Slice all = whole_of(shape);
    const StateSlice slice{"w", shape, all, Tensor(&nothing, Shape{all.numel()}, DType::f32), {}, {}};
    SaveRequest request{root.path(), {}, 1, 2, {{"w", shape, DType::f32}}};
    CheckpointSaver saver(world, {.group = world});
    saver.save(request, {&slice, 1});
    const auto outcome = saver.take_outcome();
    ASSERT_TRUE(outcome->error.has_value());
    EXPECT_EQ(outcome->error->code(), ExitCode::resources);
    EXPECT_NE(std::string(outcome->error->what()).find("not enough room"), std::string::npos)
        << outcome->error->what();
  });
  EXPECT_TRUE(fs::is_empty(root.path()));
}

}  // namespace
}  // namespace ptrain
