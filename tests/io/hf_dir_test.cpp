#include "src/io/hf_dir.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "parallel/comm/agree.h"
#include "parallel/plan/mesh.h"
#include "src/io/file.h"
#include "src/io/hf_write.h"
#include "src/io/json.h"
#include "src/io/load.h"
#include "tests/support/fixtures.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// The value of element `position` of a tensor: exact in bf16 and f16 too.
float value_at(std::string_view name, int64_t position) {
  return static_cast<float>((static_cast<int64_t>(name.size()) * 37 + position) % 251) - 125.0f;
}

/// A slice of that tensor.
std::vector<float> values_of(std::string_view name, const Shape& shape, const Slice& slice) {
  std::vector<float> whole(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < whole.size(); ++i) whole[i] = value_at(name, static_cast<int64_t>(i));
  std::vector<float> part(static_cast<size_t>(slice.numel()));
  copy_common(whole_of(shape), whole.data(), DType::f32, slice, part.data(), DType::f32);
  return part;
}

Tensor flat(std::vector<float>& values) {
  return Tensor(values.data(), Shape{static_cast<int64_t>(values.size())}, DType::f32);
}

/// A model's tensors with odd shapes, and how a mesh cuts them.
std::vector<Piece> hf_pieces(DType dtype) {
  const Split rows{.dim = 0, .axis = Axis::tensor, .unit = 1, .group = 1};
  const Split columns{.dim = 1, .axis = Axis::tensor, .unit = 1, .group = 1};
  return {
      {"embed", Shape{199, 24}, dtype, {{rows}}},
      {"q_proj.weight", Shape{42, 24}, dtype, {{{.dim = 0, .axis = Axis::tensor, .unit = 7, .group = 1}}}},
      {"k_proj.weight",
       Shape{14, 24},
       dtype,
       {{{.dim = 0, .axis = Axis::tensor, .unit = 7, .group = 3}}, true}},
      {"o_proj.weight", Shape{24, 42}, dtype, {{{.dim = 1, .axis = Axis::tensor, .unit = 7, .group = 1}}}},
      {"norm", Shape{24}, dtype, {}},
      {"down.weight", Shape{24, 31}, dtype, {{columns}}},
      {"conv", Shape{3, 5, 2, 7}, dtype, {{columns}}}};
}

void write_config(const fs::path& directory) {
  fs::create_directories(directory);
  std::ofstream(directory / "config.json") << R"({"model_type": "llama"})";
}

/// Writes the pieces as the ranks of a mesh hold them: each counted box once, shared out along data as flat
/// ranges.
void write_model(Communicator& world, const Mesh& mesh, const fs::path& directory, DType dtype,
                 int64_t max_file_bytes) {
  std::vector<HfTensor> tensors;
  for (const Piece& piece : hf_pieces(dtype)) tensors.push_back({piece.name, piece.shape, dtype});
  HfWriter writer(world, directory, plan_hf_files(tensors, max_file_bytes));
  agreed(world, [&] {
    for (const Piece& piece : hf_pieces(dtype)) {
      const auto box = counted_box(piece.shape, piece.layout, mesh, world.rank());
      if (!box) continue;
      const Slice slice{*box, part_of(box->numel(), mesh.coordinate_of(world.rank()).data, mesh.data)};
      std::vector<float> values = values_of(piece.name, piece.shape, slice);
      writer.write(piece.name, slice, flat(values));
    }
    writer.sync();
  });
  writer.finish();
}

TEST(HfDir, EveryMeshWritesTheSameFilesByteForByte) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    TemporaryDirectory directory;
    std::string truth;
    for (const Mesh mesh :
         {Mesh{1, 1, 1}, Mesh{1, 1, 2}, Mesh{1, 3, 1}, Mesh{1, 1, 3}, Mesh{1, 2, 2}, Mesh{1, 2, 3}}) {
      const fs::path path = directory.path() / to_string(mesh);
      run_ranks(mesh.world(),
                [&](Communicator& world) { write_model(world, mesh, path, dtype, max_hf_file_bytes); });
      const std::string text = read_text(path / "model.safetensors", 1 << 20);
      if (truth.empty()) truth = text;
      EXPECT_EQ(text, truth) << to_string(mesh) << " " << name_of(dtype);
      EXPECT_FALSE(fs::exists(path / "model.safetensors.index.json"));
    }
  }
}

TEST(HfDir, WhatOneMeshWroteAnotherLoadsAndEveryByteIsReadOnce) {
  for (const int64_t max_file_bytes : {max_hf_file_bytes, int64_t{5000}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      TemporaryDirectory directory;
      write_config(directory.path());
      run_ranks(4, [&](Communicator& world) {
        write_model(world, Mesh{1, 2, 2}, directory.path(), dtype, max_file_bytes);
      });
      int64_t bytes = 0;
      for (const Piece& piece : hf_pieces(dtype)) bytes += piece.shape.numel() * size_bytes(dtype);
      for (const Mesh mesh : {Mesh{1, 1, 1}, Mesh{1, 1, 3}, Mesh{1, 2, 2}, Mesh{1, 3, 2}, Mesh{1, 4, 1}}) {
        run_ranks(mesh.world(), [&](Communicator& world) {
          const HfDir model = HfDir::open(directory.path());
          std::vector<WantedSlice> wanted;
          std::vector<std::vector<float>> storage;
          for (const Piece& piece : hf_pieces(dtype)) {
            const Slice slice = whole_of(local_box(piece.shape, piece.layout, mesh, world.rank()));
            storage.emplace_back(static_cast<size_t>(slice.numel()), -1.0f);
            wanted.push_back({piece.name, piece.shape, slice, flat(storage.back())});
          }
          int64_t read = load_slices(world, source_of(model), wanted);
          for (size_t i = 0; i < wanted.size(); ++i) {
            ASSERT_EQ(storage[i], values_of(wanted[i].name, wanted[i].shape, wanted[i].slice))
                << wanted[i].name << " under " << to_string(mesh);
          }
          world.all_reduce(Tensor(&read, Shape{1}, DType::i64));
          ASSERT_EQ(read, bytes) << to_string(mesh);
        });
      }
    }
  }
}

TEST(HfDir, TensorsOfManyChunksTravelToAllWhoWantThem) {
  TemporaryDirectory directory;
  write_config(directory.path());
  const Shape shape{1501, 1777};  // 10.7 MB
  run_ranks(1, [&](Communicator& world) {
    HfWriter writer(world, directory.path(), plan_hf_files({{"w", shape, DType::f32}}));
    std::vector<float> values = values_of("w", shape, whole_of(shape));
    writer.write("w", whole_of(shape), flat(values));
    writer.sync();
    writer.finish();
  });
  run_ranks(3, [&](Communicator& world) {
    const HfDir model = HfDir::open(directory.path());
    Box box = whole(shape);  // rank 0: some columns, rank 1: some rows, rank 2: nothing
    if (world.rank() == 0) box = {{0, 100}, Shape{1501, 900}};
    if (world.rank() == 1) box = {{700, 0}, Shape{801, 1777}};
    std::vector<float> values(static_cast<size_t>(box.numel()));
    std::vector<WantedSlice> wanted;
    if (world.rank() < 2) wanted.push_back({"w", shape, whole_of(box), flat(values)});
    int64_t read = load_slices(world, source_of(model), wanted);
    EXPECT_EQ(read > 0, world.rank() < 2);
    if (world.rank() < 2) {
      ASSERT_EQ(values, values_of("w", shape, whole_of(box)));
    }
    world.all_reduce(Tensor(&read, Shape{1}, DType::i64));
    EXPECT_EQ(read, shape.numel() * 4);
  });
}

TEST(HfDir, LargeModelsAreCutIntoNumberedFilesWithAnIndex) {
  const std::vector<HfTensor> tensors = {{"a", Shape{10}, DType::f32, 0},
                                         {"b", Shape{10}, DType::bf16, 0},
                                         {"c", Shape{30}, DType::f32, 0},
                                         {"d", Shape{1}, DType::f32, 1}};
  const HfPlan plan = plan_hf_files(tensors, 60);
  ASSERT_EQ(plan.files.size(), 3u);
  EXPECT_EQ(plan.files[0].name, "model-00001-of-00003.safetensors");
  EXPECT_EQ(plan.files[0].layout.entries.size(), 2u);
  EXPECT_EQ(plan.files[1].layout.entries[0].name, "c");  // larger than the limit: alone
  EXPECT_EQ(plan.files[2].layout.entries[0].name, "d");
  const Json index = parse_json(plan.index_text, "index");
  EXPECT_EQ(index["metadata"]["total_size"], 40 + 20 + 120 + 4);
  EXPECT_EQ(index["weight_map"]["c"], "model-00002-of-00003.safetensors");
  EXPECT_EQ(plan_hf_files({tensors[0], tensors[1]}).files[0].name, "model.safetensors");
}

TEST(HfDir, AForgottenPartOfATensorIsFoundBeforeTheIndexIsWritten) {
  TemporaryDirectory directory;
  EXPECT_THROW(
      run_ranks(2,
                [&](Communicator& world) {
                  HfWriter writer(world, directory.path(), plan_hf_files({{"w", Shape{4, 3}, DType::f32}}));
                  std::vector<float> values(6);
                  if (world.rank() == 0) writer.write("w", whole_of(Box{{0, 0}, Shape{2, 3}}), flat(values));
                  writer.sync();
                  writer.finish();
                }),
      AgreedError);
}

/// Opens a directory that must be refused, and gives the reason.
std::string failure_of_directory(const fs::path& directory) {
  try {
    HfDir::open(directory);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    return error.what();
  }
  return "it was accepted";
}

TEST(HfDir, DirectoriesThatCannotBeReadSayWhyAndWhatToDo) {
  OwnedTensor w(Shape{2}, DType::f32);
  const auto weights = [&](const fs::path& path) { write_safetensors(path, {{"w", w.view}}); };
  const auto index = [](const fs::path& d, std::string_view text) {
    std::ofstream(d / "model.safetensors.index.json") << text;
  };
  struct Case {
    std::function<void(const fs::path&)> make;
    std::string reason;
  };
  const Case cases[] = {
      {[](auto&) {}, "there are no weights: neither model.safetensors nor"},
      {[](auto& d) { fs::remove(d / "config.json"); }, "config.json is missing"},
      {[](auto& d) { std::ofstream(d / "config.json") << "{"; }, "config.json:1:2: not valid JSON"},
      {[](auto& d) { std::ofstream(d / "pytorch_model.bin") << "PK"; }, "pytorch_model.bin, a pickle"},
      {[](auto& d) { std::ofstream(d / "model.pt") << "PK"; }, "convert it to safetensors"},
      {[](auto& d) { std::ofstream(d / "m.gguf") << "GGUF"; }, "ptrain import"},
      {[&](auto& d) { weights(d / "other.safetensors"); }, "there is other.safetensors, but neither"},
      {[&](auto& d) { std::ofstream(d / "model.safetensors") << "no"; }, "is it truncated?"},
      {[&](auto& d) { index(d, "[]"); }, "is an array, expected an object"},
      {[&](auto& d) { index(d, "{}"); }, "\"weight_map\" is missing"},
      {[&](auto& d) { index(d, R"({"weight_map": {}})"); }, "\"weight_map\" is empty"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": 7}})"); }, "expected a string"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": "a.safetensors"}})"); },
       "a.safetensors is missing in"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": "../a.safetensors"}})"); }, "no plain file name"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": "/etc/passwd"}})"); }, "no plain file name"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": ".."}})"); }, "no plain file name"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": ""}})"); }, "no plain file name"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": "a.safetensors\u0000"}})"); }, "no plain file name"},
      {[&](auto& d) { index(d, R"({"weight_map": {"w": "a.bin"}})"); }, "a pickle, which is never read"},
      {[&](auto& d) {
         weights(d / "a.safetensors");
         index(d, R"({"weight_map": {"w": "a.safetensors", "v": "a.safetensors"}})");
       },
       "says that \"v\" is in a.safetensors, but it is not there"},
      {[&](auto& d) {
         weights(d.parent_path() / "outside.safetensors");
         fs::create_symlink("../outside.safetensors", d / "model.safetensors");
       },
       "a symbolic link out of its directory"},
      {[&](auto& d) { fs::create_symlink("absent", d / "model.safetensors"); }, "a symbolic link out of"},
      {[&](auto& d) { fs::create_directory(d / "model.safetensors"); }, "not a regular file"},
  };
  for (const Case& broken : cases) {
    TemporaryDirectory parent;
    const fs::path directory = parent.path() / "model";
    write_config(directory);
    broken.make(directory);
    const std::string reason = failure_of_directory(directory);
    EXPECT_NE(reason.find(broken.reason), std::string::npos) << reason << "\n  expected: " << broken.reason;
  }
  EXPECT_NE(failure_of_directory("/nonexistent").find("no such directory"), std::string::npos);
}

TEST(HfDir, LinksOfTheHubsCacheAndInsideTheDirectoryAreFollowed) {
  TemporaryDirectory cache;
  const fs::path blobs = cache.path() / "blobs", snapshot = cache.path() / "snapshots" / "abc";
  fs::create_directories(blobs);
  write_config(snapshot);
  OwnedTensor w(Shape{2}, DType::f32);
  write_safetensors(blobs / "0123", {{"w", w.view}});
  fs::create_symlink("../../blobs/0123", snapshot / "model.safetensors");
  EXPECT_EQ(HfDir::open(snapshot).tensors().size(), 1u);
}

TEST(HfDir, ModelsThatLackTensorsOrHaveOtherShapesAreRefusedOnAllRanks) {
  TemporaryDirectory directory;
  write_config(directory.path());
  OwnedTensor w(Shape{2, 3}, DType::f32);
  write_safetensors(directory.path() / "model.safetensors", {{"w", w.view}});
  const auto failure = [&](const std::string& name, const Shape& shape) {
    std::string reason;
    run_ranks(2, [&](Communicator& world) {
      const HfDir model = HfDir::open(directory.path());
      std::vector<float> values(static_cast<size_t>(shape.numel()));
      std::vector<WantedSlice> wanted;
      if (world.rank() == 1) wanted.push_back({name, shape, whole_of(shape), flat(values)});
      try {
        load_slices(world, source_of(model), wanted);
      } catch (const AgreedError& error) {
        EXPECT_EQ(error.code(), ExitCode::input);
        if (world.rank() == 0) reason = error.what();
      }
    });
    return reason;
  };
  EXPECT_NE(failure("v", Shape{2, 3}).find("1 tensors of the model are missing: v"), std::string::npos);
  EXPECT_NE(
      failure("w", Shape{3, 2}).find("has the shape (2, 3), but the model's configuration asks for (3, 2)"),
      std::string::npos);
}

TEST(HfDir, IdentityChangesWithConfigurationNamesAndValues) {
  TemporaryDirectory directory;
  write_config(directory.path());
  OwnedTensor w(Shape{2, 3}, DType::f32);
  const auto identity = [&](const std::string& name) {
    write_safetensors(directory.path() / "model.safetensors", {{name, w.view}});
    return HfDir::open(directory.path()).identity();
  };
  const uint64_t first = identity("w");
  EXPECT_EQ(identity("w"), first);
  EXPECT_NE(identity("v"), first);
  w.view.as<float>()[5] = 1;
  EXPECT_NE(identity("w"), first);
  w.view.as<float>()[5] = 0;
  std::ofstream(directory.path() / "config.json") << R"({"model_type": "qwen2"})";
  EXPECT_NE(identity("w"), first);
}

TEST(HfDir, SmallFilesAreCopiedByName) {
  TemporaryDirectory from, to;
  write_config(from.path());
  std::ofstream(from.path() / "tokenizer.json") << "{}";
  std::ofstream(from.path() / "secret.txt") << "no";
  EXPECT_EQ(copy_small_files({from.path()}, to.path(), {"config.json"}),
            std::vector<std::string>{"tokenizer.json"});
  EXPECT_EQ(read_text(to.path() / "tokenizer.json", 10), "{}");
  EXPECT_FALSE(fs::exists(to.path() / "config.json"));
  EXPECT_FALSE(fs::exists(to.path() / "secret.txt"));
}

}  // namespace
}  // namespace ptrain
