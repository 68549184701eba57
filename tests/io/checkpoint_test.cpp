#include "src/io/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "parallel/comm/agree.h"
#include "parallel/plan/mesh.h"
#include "src/io/hdf5.h"
#include "src/io/hf_dir.h"
#include "tests/support/fixtures.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

const Split rows{.dim = 0, .axis = Axis::tensor, .unit = 1, .group = 1};
const Split columns{.dim = 1, .axis = Axis::tensor, .unit = 1, .group = 1};

/// A model of odd sizes: layers belong to pipeline stages, weights are cut along the tensor axis.
std::vector<Piece> pieces() {
  std::vector<Piece> result = {{"embed", Shape{199, 24}, DType::f32, {{rows}}},
                               {"norm", Shape{23}, DType::f32, {}}};
  for (int layer = 0; layer < 5; ++layer) {
    const std::string name = fmt::format("layers.{}.", layer);
    result.push_back(
        {name + "k", Shape{14, 24}, DType::f32, {{{.dim = 0, .axis = Axis::tensor, .unit = 7, .group = 3}}}});
    result.push_back({name + "down", Shape{24, 31}, DType::f32, {{columns}}});
  }
  return result;
}

/// The stage of a piece: layers are shared out, the rest lies on the first one.
int stage_of(const Piece& piece, const Mesh& mesh) {
  if (!piece.name.starts_with("layers.")) return 0;
  return (piece.name[7] - '0') * mesh.pipeline / 5;
}

/// A number for each element, kind and step, with more bits than bf16 holds.
float value_at(std::string_view name, int64_t position, int kind, int64_t step) {
  return static_cast<float>((static_cast<int64_t>(name.size()) * 7919 + position * 31 + step * 17) % 65521) /
             1024.0f +
         static_cast<float>(kind) * 100.0f;
}

/// This rank's part of the state, filled or empty, with the storage that the tensors point into.
struct State {
  std::vector<StateSlice> slices;
  std::vector<std::vector<float>> storage;

  Tensor add(int64_t count) {
    storage.emplace_back(static_cast<size_t>(count), -1.0f);
    return Tensor(storage.back().data(), Shape{count}, DType::f32);
  }
};

std::vector<float> values_of(const Piece& piece, const Slice& slice, int kind, int64_t step) {
  std::vector<float> whole(static_cast<size_t>(piece.shape.numel()));
  for (size_t i = 0; i < whole.size(); ++i)
    whole[i] = value_at(piece.name, static_cast<int64_t>(i), kind, step);
  std::vector<float> part(static_cast<size_t>(slice.numel()));
  copy_common(whole_of(piece.shape), whole.data(), DType::f32, slice, part.data(), DType::f32);
  return part;
}

/// What a rank writes: its share, along the data axis, of the boxes that it counts; ZeRO shards in fact.
State state_to_write(const Mesh& mesh, int rank, int64_t step) {
  State state;
  for (const Piece& piece : pieces()) {
    const auto box = counted_box(piece.shape, piece.layout, mesh, rank);
    const Coordinate at = mesh.coordinate_of(rank);
    if (!box || stage_of(piece, mesh) != at.pipeline) continue;
    const Slice slice{*box, part_of(box->numel(), at.data, mesh.data)};
    StateSlice part{piece.name, piece.shape, slice, {}, {}, {}};
    Tensor* const tensors[] = {&part.weight, &part.first_moment, &part.second_moment};
    for (int kind = 0; kind < 3; ++kind) {
      state.storage.push_back(values_of(piece, slice, kind, step));
      *tensors[kind] = Tensor(state.storage.back().data(), Shape{slice.numel()}, DType::f32);
    }
    state.slices.push_back(part);
  }
  return state;
}

/// What a rank wants: the whole of its boxes for the weights, its shard of the moments.
State state_to_load(const Mesh& mesh, int rank) {
  State state;
  for (const Piece& piece : pieces()) {
    const Coordinate at = mesh.coordinate_of(rank);
    if (stage_of(piece, mesh) != at.pipeline) continue;
    const Box box = local_box(piece.shape, piece.layout, mesh, rank);
    state.slices.push_back({piece.name, piece.shape, whole_of(box), state.add(box.numel()), {}, {}});
    const Slice shard{box, part_of(box.numel(), at.data, mesh.data)};
    const Tensor first = state.add(shard.numel()), second = state.add(shard.numel());
    state.slices.push_back({piece.name, piece.shape, shard, {}, first, second});
  }
  return state;
}

void expect_loaded(const State& state, int64_t step, DType weight_dtype = DType::f32) {
  for (const StateSlice& slice : state.slices) {
    const Piece piece{slice.name, slice.shape, DType::f32, {}};
    const Tensor tensors[] = {slice.weight, slice.first_moment, slice.second_moment};
    for (int kind = 0; kind < 3; ++kind) {
      if (!tensors[kind]) continue;
      const std::vector<float> expected = values_of(piece, slice.slice, kind, step);
      const auto* found = tensors[kind].as<float>();
      ASSERT_EQ(std::vector<float>(found, found + slice.slice.numel()), expected)
          << slice.name << " " << to_string(slice.slice) << " kind " << kind << " " << name_of(weight_dtype);
    }
  }
}

SaveRequest request_for(const fs::path& root, int64_t step, DType dtype = DType::f32, int64_t keep = 2) {
  SaveRequest request{root, {}, step, keep, {}, {{"position", step * 64}, {"model", "a"}}};
  for (const Piece& piece : pieces()) request.tensors.push_back({piece.name, piece.shape, dtype});
  return request;
}

void save(const Mesh& mesh, const SaveRequest& request) {
  run_ranks(mesh.world(), [&](Communicator& world) {
    const State state = state_to_write(mesh, world.rank(), request.step);
    EXPECT_EQ(save_checkpoint(world, request, state.slices), request.root / checkpoint_name(request.step));
  });
}

/// Flips a byte of a file.
void damage(const fs::path& path, int64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const int byte = file.get();
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 0x40));
}

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
  request.source = source.path();
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

TEST(Checkpoint, ADamagedOneIsPassedOverForTheOneBefore) {
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

TEST(Checkpoint, WhereNoneIsWholeTheRunIsToldAndWhereThereIsNoneItBeginsAnew) {
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

TEST(Checkpoint, AFailureOfOneRankLeavesTheOlderOneAndNoNewOne) {
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

TEST(Checkpoint, MomentsOfWhichAPartIsMissingOrWrittenTwiceAreNotCommitted) {
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
