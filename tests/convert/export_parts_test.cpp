// Exports of checkpoints whose parts lie on disks of the hosts' own.
#include <gtest/gtest.h>

#include "src/convert/export.h"
#include "src/io/hf_dir.h"
#include "tests/io/nodes.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Exports step 7; each host names it by its own path, as each machine by the same. Returns what was
/// reported.
ExportReport export_on(const Nodes& nodes, std::optional<DType> dtype) {
  ExportReport report;
  nodes.run([&](const Storage& storage, const fs::path& root) {
    if (storage.is_first_of_disk() && fs::exists(root / checkpoint_name(7)))
      std::ofstream(root / checkpoint_name(7) / "config.json") << R"({"dtype": "bfloat16"})";
    storage.world().barrier();
    const ExportReport mine = export_model(storage, root / checkpoint_name(7), nodes.base / "out", dtype);
    if (storage.world().rank() == 0) report = mine;
  });
  return report;
}

void expect_exported(const fs::path& directory, bool is_rounded) {
  const HfDir model = HfDir::open(directory);
  ASSERT_EQ(model.tensors().size(), pieces().size());
  for (const Piece& piece : pieces()) {
    std::vector<float> found(static_cast<size_t>(piece.shape.numel()));
    model.read_box(piece.name, whole(piece.shape), Tensor(found.data(), piece.shape, DType::f32));
    const std::vector<float> expected = values_of(piece, whole_of(piece.shape), 0, 7);
    for (size_t i = 0; i < found.size(); ++i) {
      const float bound = is_rounded ? std::abs(expected[i]) / 256 : 0;
      ASSERT_LE(std::abs(found[i] - expected[i]), bound) << piece.name << " " << i;
    }
  }
}

TEST(ExportParts, AreAssembledOnTheFirstHostAlsoFromCopies) {
  const Nodes layouts[] = {{{}, {.pipeline = 2, .data = 1, .tensor = 2}, {"a", "a", "b", "b"}},
                           {{}, {.pipeline = 1, .data = 5, .tensor = 1}, {"a", "b", "b", "c", "c"}}};
  for (Nodes nodes : layouts) {
    TemporaryDirectory base;
    nodes.base = base.path();
    save_on(nodes, 7, DType::bf16);
    const ExportReport report = export_on(nodes, std::nullopt);
    EXPECT_EQ(report.tensors, std::ssize(pieces()));
    expect_exported(base.path() / "out", true);
    export_on(nodes, DType::f32);  // from the masters, which lie strewn over the hosts
    expect_exported(base.path() / "out", false);
    fs::copy(nodes.step("b", 7), nodes.root("a") / replica_name(7, 1), fs::copy_options::recursive);
    fs::remove_all(nodes.root("b"));
    export_on(nodes, DType::f32);
    expect_exported(base.path() / "out", false);
    fs::remove_all(nodes.root("a") / replica_name(7, 1));
    try {
      export_on(nodes, std::nullopt);
      ADD_FAILURE();
    } catch (const AgreedError& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      EXPECT_NE(std::string(error.what()).find("is on no disk that this job sees"), std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace ptrain
