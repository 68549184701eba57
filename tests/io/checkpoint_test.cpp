#include "src/io/checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>

#include "parallel/comm/agree.h"
#include "src/io/hdf5.h"
#include "src/io/hf_dir.h"
#include "src/io/load.h"
#include "tests/io/checkpoint_state.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

TEST(Checkpoint, WhatOneGridSavedEveryOtherGridLoads) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Mesh from : {Mesh{1, 1, 1}, Mesh{2, 1, 2}, Mesh{1, 2, 3}, Mesh{5, 1, 1}}) {
      TemporaryDirectory root;
      save(from, request_for(root.path(), 7, dtype));
      for (const Mesh to : {Mesh{1, 1, 1}, Mesh{1, 2, 2}, Mesh{2, 1, 3}, Mesh{3, 2, 1}}) {
        run_ranks(to.world(), [&](Communicator& world) {
          State state = state_to_load(to, world.rank());
          const auto found = resume_newest(world, root.path(), state.slices);
          ASSERT_TRUE(found.has_value());
          EXPECT_EQ(found->step, 7);
          EXPECT_EQ(found->manifest.run["position"], 448);
          expect_loaded(state, 7, dtype);
        });
      }
    }
  }
}

TEST(Checkpoint, EachByteIsReadOnce) {
  TemporaryDirectory root;
  save(Mesh{1, 2, 2}, request_for(root.path(), 1));
  int64_t elements = 0;
  for (const Piece& piece : pieces()) elements += piece.shape.numel();
  for (const Mesh mesh : {Mesh{1, 2, 2}, Mesh{2, 1, 3}}) {
    run_ranks(mesh.world(), [&](Communicator& world) {
      State state = state_to_load(mesh, world.rank());
      int64_t read = load_checkpoint(world, *find_newest(root.path()), state.slices);
      world.all_reduce(Tensor(&read, Shape{1}, DType::i64));
      EXPECT_EQ(read, 3 * 4 * elements);
    });
  }
}

TEST(Checkpoint, ItIsAnHfDirectoryWithStateAndAManifestThatCoversEveryFile) {
  TemporaryDirectory root, source;
  std::ofstream(source.path() / "config.json") << R"({"model_type": "llama"})";
  std::ofstream(source.path() / "tokenizer.json") << "{}";
  SaveRequest request = request_for(root.path(), 500, DType::bf16);
  request.small_files = {source.path()};
  save(Mesh{2, 1, 2}, request);
  const fs::path path = root.path() / "step-00000500";
  const HfDir model = HfDir::open(path);
  EXPECT_EQ(model.tensors().size(), pieces().size());
  EXPECT_EQ(model.find("norm")->dtype, DType::bf16);
  const Manifest manifest = open_manifest(path);
  size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path)) files += entry.is_regular_file();
  EXPECT_EQ(files, manifest.files.size() + 1);  // and the manifest itself
  EXPECT_EQ(manifest.of(Manifest::Kind::master).size(), pieces().size());
  // HDF5's own reader finds the moments where the manifest says.
  const StoredTensor& moment = manifest.of(Manifest::Kind::first_moment).front();
  const Hdf5Reader reader(path / moment.slices[0].file);
  EXPECT_EQ(reader.integer("step"), 500);
  const Hdf5Dataset dataset = reader.dataset("first_moment/" + moment.name + "/0");
  EXPECT_EQ(dataset.offset, moment.slices[0].offset);
  std::vector<float> values(static_cast<size_t>(dataset.shape.numel()));
  reader.read(dataset, 0, dataset.shape.numel(), values.data());
  EXPECT_EQ(values, values_of({moment.name, moment.shape, DType::f32, {}}, moment.slices[0].slice, 1, 500));
  std::vector<std::string> faults;
  EXPECT_GT(verify_checkpoint(path, manifest, [&](const std::string& fault) { faults.push_back(fault); }), 0);
  EXPECT_TRUE(faults.empty());
}

TEST(Checkpoint, AsAModelDirectoryItsWeightsAreCheckedToo) {
  TemporaryDirectory root, source;
  std::ofstream(source.path() / "config.json") << "{}";
  SaveRequest request = request_for(root.path(), 1);
  request.small_files = {source.path()};
  save(Mesh{1, 2, 2}, request);
  const fs::path path = root.path() / checkpoint_name(1);
  const auto load = [&] {
    run_ranks(2, [&](Communicator& world) {
      const HfDir model = HfDir::open(path);
      State state = state_to_load(Mesh{1, 1, 2}, world.rank());
      std::vector<WantedSlice> wanted;
      for (StateSlice& slice : state.slices) {
        if (slice.weight) wanted.push_back({slice.name, slice.shape, slice.slice, slice.weight});
        slice.first_moment = slice.second_moment = {};
      }
      load_slices(world, source_of(model), wanted);
      expect_loaded(state, 1);
    });
  };
  load();
  damage(path / "model.safetensors", static_cast<int64_t>(fs::file_size(path / "model.safetensors")) - 9);
  EXPECT_THROW(load(), AgreedError);
}

TEST(Checkpoint, MasterWeightsAreKeptOnlyWhereTheFilesAreNarrower) {
  TemporaryDirectory root;
  save(Mesh{1, 1, 1}, request_for(root.path(), 1, DType::f32));
  EXPECT_TRUE(open_manifest(root.path() / checkpoint_name(1)).of(Manifest::Kind::master).empty());
}

TEST(Checkpoint, OldOnesAreDeletedAndLeftoversSweptAway) {
  TemporaryDirectory root;
  fs::create_directories(root.path() / ".tmp-step-00000001" / "state");
  fs::create_directories(root.path() / ".trash-step-00000001");
  fs::create_directories(root.path() / "notes");
  for (const int64_t step : {1, 2, 3, 4, 4}) save(Mesh{1, 1, 2}, request_for(root.path(), step));
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(root.path()))
    names.insert(entry.path().filename().string());
  EXPECT_EQ(names, (std::set<std::string>{"notes", "step-00000003", "step-00000004"}));
  save(Mesh{1, 1, 1}, request_for(root.path(), 5, DType::f32, 0));
  EXPECT_EQ(find_newest(root.path())->step, 5);
  EXPECT_EQ(find_newest(root.path(), 5)->step, 4);
  EXPECT_EQ(find_newest(root.path(), 3), std::nullopt);
  EXPECT_EQ(find_newest(root.path() / "absent"), std::nullopt);
}

TEST(Checkpoint, ARunThatMustNotGoOnFromItIsRefusedBeforeAnythingIsLoaded) {
  TemporaryDirectory root;
  save(Mesh{1, 1, 1}, request_for(root.path(), 1));
  run_ranks(2, [&](Communicator& world) {
    State state = state_to_load(Mesh{1, 1, 2}, world.rank());
    try {
      resume_newest(world, root.path(), state.slices, [](const Manifest& manifest) {
        check(manifest.run["model"] == "b", ExitCode::usage, "another model");
      });
      ADD_FAILURE();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
    }
    EXPECT_EQ(state.storage[0][0], -1.0f);
  });
}

}  // namespace
}  // namespace ptrain
