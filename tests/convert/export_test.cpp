#include "src/convert/export.h"

#include <gtest/gtest.h>

#include <fstream>

#include "parallel/comm/agree.h"
#include "src/convert/inspect.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/file.h"
#include "src/io/hdf5.h"
#include "src/io/hf_dir.h"
#include "tests/convert/gguf_writer.h"
#include "tests/support/fixtures.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Values that bf16 cannot hold.
float value_at(int64_t tensor, int64_t i) {
  return 1.0f + static_cast<float>(tensor * 7919 + i) * 0x1p-20f;
}

const std::vector<Shape> shapes = {Shape{33, 7}, Shape{5}, Shape{9, 11}};

/// A checkpoint of three tensors, written by two ranks by columns and halves; moments too.
fs::path make_checkpoint(const fs::path& root, DType dtype, int64_t step = 3) {
  const fs::path source = root / "source";
  fs::create_directories(source);
  std::ofstream(source / "config.json")
      << R"({"model_type": "llama", "dtype": "bfloat16", "hidden_size": 7})";
  std::ofstream(source / "tokenizer.json") << "{}";
  SaveRequest request{root / "checkpoints", {source}, step, 0, {}, {{"seed", 1}}};
  for (size_t t = 0; t < shapes.size(); ++t)
    request.tensors.push_back({fmt::format("w{}", t), shapes[t], dtype});
  run_ranks(2, [&](Communicator& world) {
    std::vector<StateSlice> slices;
    std::vector<std::vector<float>> storage;
    for (size_t t = 0; t < shapes.size(); ++t) {
      const Shape& shape = shapes[t];
      Slice slice{whole(shape), part_of(shape.numel(), world.rank(), 2)};
      if (t == 0) slice = whole_of(Box{{0, world.rank() * 3}, Shape{33, 3 + world.rank()}});
      std::vector<float> all(static_cast<size_t>(shape.numel())), part(static_cast<size_t>(slice.numel()));
      for (size_t i = 0; i < all.size(); ++i)
        all[i] = value_at(static_cast<int64_t>(t), static_cast<int64_t>(i));
      copy_common(whole_of(shape), all.data(), DType::f32, slice, part.data(), DType::f32);
      storage.push_back(part);
      const Tensor tensor(storage.back().data(), Shape{slice.numel()}, DType::f32);
      slices.push_back({fmt::format("w{}", t), shape, slice, tensor, tensor, tensor});
    }
    save_checkpoint(world, request, slices);
  });
  return request.root / checkpoint_name(step);
}

TEST(Export, TakesTheWiderWeightsWhereTheyAreAskedFor) {
  TemporaryDirectory root;
  const fs::path checkpoint = make_checkpoint(root.path(), DType::bf16);
  for (const int ranks : {1, 3}) {
    const fs::path out = root.path() / fmt::format("out-{}", ranks);
    run_ranks(ranks, [&](Communicator& world) {
      const ExportReport report = export_model(world, checkpoint, out, DType::f32);
      EXPECT_EQ(report.tensors, 3);
      EXPECT_EQ(report.parameters, 33 * 7 + 5 + 99);
    });
    const HfDir model = HfDir::open(out);
    EXPECT_EQ(model.config()["dtype"], "float32");
    EXPECT_TRUE(fs::exists(out / "tokenizer.json"));
    for (size_t t = 0; t < shapes.size(); ++t) {
      const OwnedTensor tensor = model.file("model.safetensors").read(fmt::format("w{}", t));
      for (int64_t i = 0; i < shapes[t].numel(); ++i) {
        ASSERT_EQ(tensor.view.as<float>()[i], value_at(static_cast<int64_t>(t), i)) << t << " " << i;
      }
    }
  }
}

TEST(Export, WithoutADtypeTheWeightsKeepTheirBytes) {
  TemporaryDirectory root;
  const fs::path checkpoint = make_checkpoint(root.path(), DType::bf16);
  run_ranks(2,
            [&](Communicator& world) { export_model(world, checkpoint, root.path() / "out", std::nullopt); });
  EXPECT_EQ(read_text(root.path() / "out" / "model.safetensors", 1 << 20),
            read_text(checkpoint / "model.safetensors", 1 << 20));
  EXPECT_EQ(read_hf_config(root.path() / "out")["dtype"], "bfloat16");
  // A plain model directory can be exported too, here to another dtype.
  run_ranks(1, [&](Communicator& world) {
    export_model(world, root.path() / "out", root.path() / "half", DType::f16);
  });
  EXPECT_EQ(HfDir::open(root.path() / "half").find("w1")->dtype, DType::f16);
}

TEST(Export, DamageIsFoundOnTheWayAndNothingIsPublished) {
  TemporaryDirectory root;
  const fs::path checkpoint = make_checkpoint(root.path(), DType::f32);
  std::fstream file(checkpoint / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-3, std::ios::end);
  file.put('!');
  file.close();
  EXPECT_THROW(run_ranks(2,
                         [&](Communicator& world) {
                           export_model(world, checkpoint, root.path() / "out", std::nullopt);
                         }),
               AgreedError);
  EXPECT_FALSE(fs::exists(root.path() / "out" / "config.json"));
  const Inspection found = inspect(checkpoint, Checksums::verify);
  ASSERT_EQ(found.faults.size(), 1u);
  EXPECT_NE(found.faults[0].find("w2"), std::string::npos) << found.faults[0];
}

TEST(Export, OntoItselfIsRefused) {
  TemporaryDirectory root;
  const fs::path checkpoint = make_checkpoint(root.path(), DType::f32);
  EXPECT_THROW(run_ranks(1, [&](Communicator& world) { export_model(world, checkpoint, checkpoint, {}); }),
               Error);
}

TEST(Inspect, SaysWhatEachKindOfFileHolds) {
  TemporaryDirectory root;
  const fs::path checkpoint = make_checkpoint(root.path(), DType::bf16);
  make_checkpoint(root.path(), DType::bf16, 4);
  GgufWriter gguf;
  gguf.set("general.architecture", "llama\x1b[31m");
  gguf.add("token_embd.weight", {32, 2}, 8, std::string(68, 'x'));
  gguf.write(root.path() / "x.gguf");
  struct Case {
    fs::path path;
    std::vector<std::string> parts;
  };
  const Case cases[] = {
      {checkpoint,
       {"a checkpoint of step 3", "run: {\"seed\":1}", "first_moment: 3 tensors in 6 slices",
        "config.json: model_type llama, hidden_size 7", "bf16     (33, 7)", "master: 3 tensors"}},
      {root.path() / "checkpoints", {"2 checkpoints", "step-00000003: whole", "step-00000004: whole"}},
      {root.path(), {"2 checkpoints"}},
      {checkpoint / "model.safetensors",
       {"safetensors", "metadata format: pt", "3 tensors, 335 elements", "w2"}},
      {checkpoint / "state/rank-00001.h5", {"HDF5", "first_moment/w0/0", "f32      (132)"}},
      {root.path() / "x.gguf",
       {"GGUF version 3", "general.architecture: llama\\u001b[31m", "Q8_0     (2, 32)", "token_embd.weight"}},
  };
  for (const Case& c : cases) {
    const Inspection found = inspect(c.path, Checksums::verify);
    EXPECT_TRUE(found.faults.empty());
    for (const std::string& part : c.parts) {
      EXPECT_NE(found.text.find(part), std::string::npos) << part << "\n in \n" << found.text;
    }
  }
}

TEST(Inspect, OtherThingsAreRefusedWithTheReason) {
  TemporaryDirectory root;
  std::ofstream(root.path() / "x.bin") << "PK\x03\x04 of a pickle";
  std::ofstream(root.path() / "x.txt") << "some text, long enough";
  std::ofstream(root.path() / "empty.safetensors");
  std::ofstream(root.path() / "x.gguf") << "GGUF";
  const std::pair<const char*, const char*> cases[] = {
      {"x.bin", "looks like a pickle"}, {"x.txt", "is no safetensors, GGUF or HDF5 file"},
      {"empty.safetensors", "too few"}, {"x.gguf", "too few for a GGUF file"},
      {"absent", "no such file"},       {".", "neither a model directory (config.json) nor a checkpoint"}};
  for (const auto& [name, reason] : cases) {
    try {
      inspect(root.path() / name, Checksums::skip);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace ptrain
