// Packed rows: several documents in a row, attention kept inside each. Whatever the row's length, loss and
// gradients are those of the documents alone, as the reference computed them.
#include <gtest/gtest.h>

#include <cmath>

#include "src/io/file.h"
#include "src/io/json.h"
#include "tests/support/curve.h"
#include "tests/support/ranks.h"
#include "tests/support/tolerances.h"

namespace ptrain {
namespace {

struct PackedCase {
  PackedCase() {
    const std::string text = read_text(directory / "train.jsonl", 1 << 20);
    std::vector<Document> rows;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = text.find('\n', begin);
      const Json row = parse_json(std::string_view(text).substr(begin, end - begin), "train.jsonl");
      rows.push_back({.ids = row["input_ids"].get<std::vector<int32_t>>(),
                      .labels = row["labels"].get<std::vector<int32_t>>()});
      begin = end + 1;
    }
    documents.emplace(std::move(rows));
    const Json packed = read_json(directory / "packed.json");
    for (const Json& document : packed["documents"]) {
      nll += document["sum_nll"].get<double>();
      targets += document["targets"].get<int64_t>();
    }
  }

  Batches batches(int64_t T, int64_t rows, RowPacking packing) const {
    return Batches(*documents, {.sequence_length = T, .packing = packing},
                   {.micro = rows, .global = rows, .data = 1}, {.shuffle = Shuffle::off});
  }

  std::filesystem::path directory = fixture("golden/llama-packed");
  ModelSpec spec = read_model_spec(directory);
  std::optional<MemoryDocuments> documents;
  double nll = 0;
  int64_t targets = 0;
};

class Packed : public testing::TestWithParam<std::tuple<int64_t, RowPacking>> {};

TEST_P(Packed, LossAndEveryGradientAreTheReferences) {
  const PackedCase golden;
  const auto [T, packing] = GetParam();
  const auto rows =
      packing == RowPacking::on ? (56 + T - 1) / T + 3 : int64_t{8};  // enough for next-fit's gaps
  const Batches batches = golden.batches(T, rows, packing);
  ASSERT_EQ(batches.steps_per_epoch(0), 1);
  const MicroBatch batch = batches.micro_batch(1, 0, 0);
  EXPECT_EQ(batch.supervised, golden.targets);

  Model model(golden.spec, one_rank_plan(golden.spec, rows, T), 0, {}, Context{});
  load_golden_weights(SafetensorsFile::open(golden.directory / "model.safetensors"), model);
  model.clear();
  MicroInput staging = model.make_staging();
  model.fill_staging({batch.ids, batch.targets, batch.positions, batch.document_start}, staging);
  model.stage().load(0, staging);
  model.stage().forward(0, Pass::train, 1.0 / static_cast<double>(golden.targets));
  model.stage().backward(0, model.stage().units());
  EXPECT_NEAR(*model.loss().as<double>(), golden.nll, tolerance::golden_loss * golden.nll);
  const SafetensorsFile reference = SafetensorsFile::open(golden.directory / "golden.safetensors");
  for (const PlacedWeight& weight : model.placed()) {
    const OwnedTensor want = reference.read("grad." + weight.spec.piece.name);
    const std::span<const float> got(model.gradients().as<float>() + weight.offset,
                                     static_cast<size_t>(weight.box.numel()));
    EXPECT_LE(relative_to_largest(got, want.view.span<float>()), tolerance::golden) << weight.spec.piece.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, Packed,
                         testing::Values(std::tuple{13, RowPacking::on}, std::tuple{17, RowPacking::on},
                                         std::tuple{24, RowPacking::on}, std::tuple{64, RowPacking::on},
                                         std::tuple{13, RowPacking::off}, std::tuple{19, RowPacking::off}));

TEST(PackedRows, GiveTheSameLossAndNormOnEveryGrid) {
  const PackedCase golden;
  std::optional<StepResult> first;
  for (const Grid& grid :
       {Grid{}, Grid{.tensor = 2, .is_sequence_parallel = true}, Grid{.pipeline = 2, .data = 2},
        Grid{.tensor = 2, .pipeline = 2, .is_sequence_parallel = true}}) {
    if (golden.spec.H % grid.tensor != 0) continue;
    run_ranks(grid.world(), [&](Communicator& world) {
      const Batches batches(*golden.documents, {.sequence_length = 17},
                            {.micro = 1, .global = 6, .data = grid.data}, {.shuffle = Shuffle::off});
      ParallelConfig parallel;
      parallel.tensor = grid.tensor;
      parallel.pipeline = grid.pipeline;
      parallel.data = grid.data;
      parallel.is_sequence_parallel = grid.is_sequence_parallel;
      parallel.global = 6;
      parallel.sequence_length = 17;
      const auto sequence_parallel = grid.is_sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
      Trainer trainer(
          golden.spec, {},
          make_plan(workload_of(golden.spec, sequence_parallel, grid.pipeline), parallel, grid.world()),
          world, Context{});
      load_golden_weights(SafetensorsFile::open(golden.directory / "model.safetensors"), trainer.model());
      const StepResult result = trainer.step(batches, 1, 1);
      if (world.rank() != 0) return;
      EXPECT_NEAR(result.loss, golden.nll / static_cast<double>(golden.targets),
                  tolerance::golden_loss * result.loss)
          << to_string(grid);
      if (!first) first = result;
      EXPECT_NEAR(result.grad_norm, first->grad_norm, tolerance::golden_grad_norm * result.grad_norm)
          << to_string(grid);
    });
  }
}

}  // namespace
}  // namespace ptrain
