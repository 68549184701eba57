// Checkpoints that went wrong: damaged, cut short, killed, without room on the disk.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "kernels/base/rng.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/self_comm.h"
#include "src/io/checkpoint_saver.h"
#include "tests/io/checkpoint_state.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Runs `work` with files limited to so many bytes: writing on fails as on a full disk.
void with_small_disk(int64_t bytes, const std::function<void()>& work) {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = static_cast<rlim_t>(bytes);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  work();
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
}

TEST(CheckpointFaults, AFullDiskIsReportedAsSuchAndTheOlderOneStays) {
  TemporaryDirectory root;
  save(Mesh{1, 1, 2}, request_for(root.path(), 1));
  for (const int64_t bytes : {0, 100, 2000, 20000, 40000}) {
    with_small_disk(bytes, [&] {
      run_ranks(2, [&](Communicator& world) {
        const State state = state_to_write(Mesh{1, 1, 2}, world.rank(), 2);
        try {
          save_checkpoint(world, request_for(root.path(), 2), state.slices);
          ADD_FAILURE() << bytes;
        } catch (const AgreedError& error) {
          EXPECT_EQ(error.code(), ExitCode::resources) << error.what();
        }
      });
    });
    EXPECT_EQ(find_newest(root.path())->step, 1) << bytes;
  }
  save(Mesh{1, 1, 2}, request_for(root.path(), 2));
  EXPECT_EQ(find_newest(root.path())->step, 2);
}

TEST(CheckpointFaults, AProcessKilledAtAnyMomentLeavesAWholeOne) {
  TemporaryDirectory root;
  const auto begin = std::chrono::steady_clock::now();
  save(Mesh{1, 1, 1}, request_for(root.path(), 1));
  const auto one_save =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  const Rng rng(3, 0);
  int64_t last_step = 1;
  for (uint64_t round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto alone = make_self_communicator();
      for (int64_t step = last_step + 1;; ++step) {
        const State state = state_to_write(Mesh{1, 1, 1}, 0, step);
        save_checkpoint(*alone, request_for(root.path(), step), state.slices);
      }
    }
    // Spread over three times what one save takes on this machine, now.
    ::usleep(static_cast<useconds_t>(rng.below(round, static_cast<uint64_t>(3 * one_save.count()))));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto found = find_newest(root.path());
    ASSERT_TRUE(found.has_value());
    ASSERT_GE(found->step, last_step);
    last_step = found->step;
    run_ranks(2, [&](Communicator& world) {
      State state = state_to_load(Mesh{1, 1, 2}, world.rank());
      load_checkpoint(world, *found, state.slices);
      expect_loaded(state, last_step);
    });
  }
  EXPECT_GT(last_step, 1);
}

TEST(CheckpointFaults, ADamagedOneIsPassedOverForTheOneBefore) {
  struct Damage {
    std::string name;
    std::function<void(const fs::path&)> apply;
    bool is_seen_by_scan;  // or only when the tensors are read
  };
  const Damage damages[] = {
      {"no manifest", [](const fs::path& p) { fs::remove(p / "MANIFEST.json"); }, true},
      {"half a manifest", [](const fs::path& p) { fs::resize_file(p / "MANIFEST.json", 300); }, true},
      {"empty manifest", [](const fs::path& p) { fs::resize_file(p / "MANIFEST.json", 0); }, true},
      {"flipped manifest", [](const fs::path& p) { damage(p / "MANIFEST.json", 100); }, true},
      {"no weights", [](const fs::path& p) { fs::remove(p / "model.safetensors"); }, true},
      {"short weights", [](const fs::path& p) { fs::resize_file(p / "model.safetensors", 5000); }, true},
      {"flipped header", [](const fs::path& p) { damage(p / "model.safetensors", 30); }, true},
      {"flipped HDF5 header", [](const fs::path& p) { damage(p / "state/rank-00001.h5", 9); }, true},
      {"flipped HDF5 structure",
       [](const fs::path& p) {
         damage(p / "state/rank-00001.h5",
                open_manifest(p).of(Manifest::Kind::first_moment)[0].slices[0].offset - 1);
       },
       true},
      {"no state", [](const fs::path& p) { fs::remove(p / "state/rank-00001.h5"); }, true},
      {"flipped weight",
       [](const fs::path& p) {
         damage(p / "model.safetensors", static_cast<int64_t>(fs::file_size(p / "model.safetensors")) - 9);
       },
       false},
      {"flipped moment",
       [](const fs::path& p) {
         const StoredTensor moment = open_manifest(p).of(Manifest::Kind::second_moment).back();
         damage(p / moment.slices.back().file, moment.slices.back().offset + 5);
       },
       false},
  };
  for (const Damage& d : damages) {
    TemporaryDirectory root;
    for (const int64_t step : {1, 2}) save(Mesh{1, 1, 2}, request_for(root.path(), step));
    d.apply(root.path() / checkpoint_name(2));
    EXPECT_EQ(find_newest(root.path())->step, d.is_seen_by_scan ? 1 : 2) << d.name;
    run_ranks(2, [&](Communicator& world) {
      State state = state_to_load(Mesh{1, 1, 2}, world.rank());
      const auto found = resume_newest(world, root.path(), state.slices);
      ASSERT_TRUE(found.has_value()) << d.name;
      EXPECT_EQ(found->step, 1) << d.name;
      expect_loaded(state, 1);
    });
    if (!d.is_seen_by_scan) {
      int faults = 0;
      const fs::path path = root.path() / checkpoint_name(2);
      verify_checkpoint(path, open_manifest(path), [&](const std::string&) { ++faults; });
      EXPECT_EQ(faults, 1) << d.name;
    }
  }
}

TEST(CheckpointFaults, ADamagedWeightOfWhichAMasterIsLoadedIsNotBelievedEither) {
  for (int ranks : {1, 2}) {
    TemporaryDirectory root;
    for (const int64_t step : {1, 2}) save(Mesh{1, 1, 2}, request_for(root.path(), step, DType::bf16));
    const fs::path weights = root.path() / checkpoint_name(2) / "model.safetensors";
    damage(weights, static_cast<int64_t>(fs::file_size(weights)) - 9);
    run_ranks(ranks, [&](Communicator& world) {
      State state = state_to_load(Mesh{1, 1, ranks}, world.rank());
      const auto found = resume_newest(world, root.path(), state.slices);
      ASSERT_TRUE(found.has_value());
      EXPECT_EQ(found->step, 1);
      expect_loaded(state, 1);
    });
  }
}

TEST(CheckpointFaults, WhereNoneIsWholeTheRunIsToldAndWhereThereIsNoneItBeginsAnew) {
  TemporaryDirectory root;
  save(Mesh{1, 1, 2}, request_for(root.path(), 1));
  damage(root.path() / checkpoint_name(1) / "MANIFEST.json", 50);
  run_ranks(2, [&](Communicator& world) {
    State state = state_to_load(Mesh{1, 1, 2}, world.rank());
    EXPECT_EQ(resume_newest(world, root.path() / "absent", state.slices), std::nullopt);
    try {
      resume_newest(world, root.path(), state.slices);
      ADD_FAILURE();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::no_checkpoint);
      EXPECT_NE(std::string(error.what()).find("there are checkpoints, but none is whole"),
                std::string::npos);
    }
  });
}

TEST(CheckpointFaults, AFailureOfOneRankLeavesTheOlderOneAndNoNewOne) {
  TemporaryDirectory root;
  save(Mesh{1, 1, 2}, request_for(root.path(), 1));
  EXPECT_THROW(run_ranks(2,
                         [&](Communicator& world) {
                           State state = state_to_write(Mesh{1, 1, 2}, world.rank(), 2);
                           if (world.rank() == 1) state.slices[0].name = "unknown";
                           save_checkpoint(world, request_for(root.path(), 2), state.slices);
                         }),
               AgreedError);
  EXPECT_EQ(find_newest(root.path())->step, 1);
  EXPECT_THROW(run_ranks(2,
                         [&](Communicator& world) {
                           State state = state_to_write(Mesh{1, 1, 2}, world.rank(), 2);
                           if (world.rank() == 1) state.slices.pop_back();  // a part nobody writes
                           save_checkpoint(world, request_for(root.path(), 2), state.slices);
                         }),
               AgreedError);
  EXPECT_FALSE(fs::exists(root.path() / checkpoint_name(2)));
}

TEST(CheckpointFaults, MomentsOfWhichAPartIsMissingOrWrittenTwiceAreNotCommitted) {
  for (const bool is_twice : {false, true}) {
    TemporaryDirectory root;
    EXPECT_THROW(run_ranks(2,
                           [&](Communicator& world) {
                             State state = state_to_write(Mesh{1, 1, 2}, world.rank(), 2);
                             StateSlice& slice = state.slices[0];
                             if (world.rank() == 1 && !is_twice) slice.first_moment = {};
                             if (world.rank() == 1 && is_twice) {
                               StateSlice again = slice;
                               again.weight = {};
                               state.slices.push_back(again);
                             }
                             save_checkpoint(world, request_for(root.path(), 2), state.slices);
                           }),
                 AgreedError);
    EXPECT_FALSE(fs::exists(root.path() / checkpoint_name(2)));
  }
}

}  // namespace
}  // namespace ptrain
