#include "parallel/plan/plan.h"

#include <gtest/gtest.h>

#include "kernels/base/arena.h"
#include "parallel/plan/sent.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

ParallelConfig grid_of(int tensor, int pipeline, int data) {
  return {.tensor = tensor, .pipeline = pipeline, .data = data, .global = 8 * data, .sequence_length = 24};
}

struct Refusal {
  ParallelConfig parallel;
  int world;
  const char* says;
};

TEST(Plan, ImpossibleCombinationsAreRefusedWithTheValuesAndTheFix) {
  std::vector<Refusal> refusals = {
      {grid_of(2, 2, 3), 8,
       "tensor * pipeline * data = 2 * 2 * 3 = 12, but mpirun started 8 ranks; start 12 ranks or set "
       "parallel.data to 2"},
      {grid_of(4, 4, 0), 8, "tensor * pipeline = 4 * 4 = 16, but mpirun started 8 ranks"},
      {grid_of(3, 1, 2), 8,
       "3 * 1 * 2 = 6, but mpirun started 8 ranks; start 6 ranks or choose another grid"},
      {grid_of(0, 1, 1), 1, "parallel.tensor = 0"},
      {grid_of(4, 1, 1), 4,
       "the model has 6 attention heads, which parallel.tensor = 4 does not divide; set it to 1, 2, 3 or 6"},
      {grid_of(1, 5, 1), 5,
       "= 5 stages, but the model has 4 blocks and every stage needs one; set parallel.pipeline to at most "
       "4"},
      {grid_of(1, 1, 1), 1, "parallel.zero = 4"},
      {grid_of(1, 2, 1), 2, "parallel.virtual_stages = 2"},
      {grid_of(1, 1, 2), 2,
       "batch.global = 64 is no multiple of batch.micro * data = 3 * 2 = 6; set it to 60 or 66"},
      {grid_of(1, 1, 4), 4, "batch.global = 3 is no multiple of batch.micro * data = 1 * 4 = 4; set it to 4"},
  };
  refusals[6].parallel.zero = 4;
  refusals[7].parallel.virtual_stages = 2;
  refusals[8].parallel.micro = 3;
  refusals[8].parallel.global = 64;
  refusals[9].parallel.global = 3;
  for (const Refusal& refusal : refusals) {
    try {
      make_plan(toy_workload({}), refusal.parallel, refusal.world);
      ADD_FAILURE() << "accepted; expected: " << refusal.says;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_NE(std::string(error.what()).find(refusal.says), std::string::npos)
          << error.what() << "\nexpected: " << refusal.says;
    }
  }
}

TEST(Plan, EveryGridOfSmallWorldsIsPlannedWithTheTextbookSlots) {
  Cases cases(13);
  const ToySizes sizes{.V = 256, .C = 64, .L = 8, .H = 8, .K = 4, .D = 8, .F = 96};
  for (int world : {1, 2, 3, 4, 6, 8, 12, 64}) {
    for (int tensor : {1, 2, 4, 8}) {
      for (int pipeline = 1; pipeline <= 8; ++pipeline) {
        if (world % (tensor * pipeline) != 0) continue;
        ParallelConfig parallel = grid_of(tensor, pipeline, world / (tensor * pipeline));
        parallel.schedule = cases.coin() ? ScheduleName::gpipe : ScheduleName::one_f_one_b;
        parallel.is_sequence_parallel = cases.coin() && tensor > 1;
        parallel.bucket_elements = cases.between(1, 100'000);
        const Plan plan =
            make_plan(toy_workload(sizes, pipeline > 1 ? Tied::apart : Tied::on_one_stage), parallel, world);
        EXPECT_EQ(plan.micros, 8);
        EXPECT_EQ(plan.is_tied_apart, pipeline > 1);
        for (int position = 0; position < pipeline; ++position) {
          const bool is_gpipe = parallel.schedule == ScheduleName::gpipe && pipeline > 1;
          EXPECT_EQ(plan.slots[static_cast<size_t>(position)][0],
                    is_gpipe ? 8 : std::min(pipeline - position, 8));
        }
        EXPECT_EQ(plan.slots, plan.report.peak_live);
      }
    }
  }
}

TEST(Plan, TheTiedEmbeddingIsABucketOfItsOwnOnBothEnds) {
  const Plan plan = make_plan(toy_workload({}, Tied::apart), grid_of(1, 2, 1), 2);
  EXPECT_EQ(plan.stages[0].bucket_units.back(), (Range{0, 1}));
  EXPECT_EQ(plan.stages[1].bucket_units.front(), (Range{6, 1}));
}

TEST(Plan, TheLedgerHoldsWhatTheFormulasSay) {
  ParallelConfig parallel = grid_of(1, 1, 1);
  parallel.types = {.param = DType::bf16, .grad = DType::f32};
  const Workload workload = toy_workload({.V = 208});
  const Plan plan = make_plan(workload, parallel, 1);
  int64_t parameters = 0;
  for (const Unit& unit : workload.units) {
    for (const UnitPiece& piece : unit.pieces) parameters += piece.piece.shape.numel();
  }
  const Ledger ledger = ledger_of(plan, 0);
  // All sizes of this toy are multiples of flat_alignment, so there is no padding between pieces.
  EXPECT_EQ(ledger.bytes(MemoryKind::weights), arena_bytes(2 * parameters));
  EXPECT_EQ(ledger.bytes(MemoryKind::gradients), arena_bytes(4 * parameters));
  EXPECT_EQ(ledger.bytes(MemoryKind::master), arena_bytes(4 * parameters));
  EXPECT_EQ(ledger.bytes(MemoryKind::moments), 2 * arena_bytes(4 * parameters));
  // One slot of 24 rows: x (48), q (48), k (16) of 4 blocks, the output and its gradient.
  EXPECT_EQ(ledger.bytes(MemoryKind::activations), 24 * 4 * (4 * (48 + 48 + 16) + 2 * 48));
  // The scalars of a step are a grant of their own.
  EXPECT_EQ(ledger.bytes(MemoryKind::scratch), 24 * 4 * 104 + ledger_alignment);
  EXPECT_EQ(ledger.bytes(MemoryKind::communication), 0);
  int64_t sum = 0;
  for (int kind = 0; kind < memory_kinds; ++kind) sum += ledger.bytes(static_cast<MemoryKind>(kind));
  EXPECT_EQ(ledger.total_bytes(), sum);
}

TEST(Plan, MasterWeightsExistOnlyWhereTheyDiffer) {
  const Plan plan = make_plan(toy_workload({}), grid_of(1, 1, 1), 1);
  EXPECT_EQ(ledger_of(plan, 0).bytes(MemoryKind::master), 0);
}

TEST(Plan, AnOffloadedOptimizerLeavesTheDeviceForTheHost) {
  for (int zero : {0, 1, 2, 3}) {
    ParallelConfig parallel = grid_of(1, 1, 4);
    parallel.zero = zero;
    parallel.types = {.param = DType::bf16, .master = DType::i16};
    parallel.bucket_elements = 1;  // a bucket a unit
    const Plan on_device = make_plan(toy_workload({}), parallel, 4);
    parallel.offload = Offload::optimizer;
    const Plan offloaded = make_plan(toy_workload({}), parallel, 4);
    const Ledger before = ledger_of(on_device, 1), after = ledger_of(offloaded, 1);
    const Ledger host = host_ledger_of(offloaded, 1);
    EXPECT_EQ(host_ledger_of(on_device, 1).total_bytes(), 0);
    EXPECT_EQ(after.bytes(MemoryKind::moments) + after.bytes(MemoryKind::master), 0);
    EXPECT_EQ(host.bytes(MemoryKind::moments), before.bytes(MemoryKind::moments));
    EXPECT_EQ(host.bytes(MemoryKind::master), before.bytes(MemoryKind::master));
    EXPECT_EQ(after.total_bytes(),
              before.total_bytes() - before.bytes(MemoryKind::moments) - before.bytes(MemoryKind::master));
    // A copy of what it updates, in bf16, and the gradients of two buckets, in f32.
    const FlatLayout layout = flat_layout_of(offloaded, 1);
    const int64_t parts = zero == 0 ? 1 : 4;
    int64_t largest = 0;
    for (const FlatBucket& bucket : layout.buckets) largest = std::max(largest, bucket.elements.count);
    EXPECT_EQ(host.bytes(MemoryKind::weights), arena_bytes(2 * layout.trainable_elements / parts));
    EXPECT_EQ(host.bytes(MemoryKind::communication), 2 * arena_bytes(4 * largest / parts));
  }
}

TEST(Plan, ZeroOneDividesTheOptimizersStateByTheDataAxis) {
  ParallelConfig parallel = grid_of(1, 1, 4);
  const Plan sharded = make_plan(toy_workload({}), parallel, 4);
  parallel.zero = 0;
  const Plan whole = make_plan(toy_workload({}), parallel, 4);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(4 * ledger_of(sharded, rank).bytes(MemoryKind::moments),
              ledger_of(whole, rank).bytes(MemoryKind::moments));
    EXPECT_EQ(ledger_of(sharded, rank).bytes(MemoryKind::weights),
              ledger_of(whole, rank).bytes(MemoryKind::weights));
  }
}

TEST(Plan, SequenceParallelismCutsRowsAndPadsThem) {
  ParallelConfig parallel = grid_of(3, 1, 1);
  parallel.sequence_length = 19;
  parallel.is_sequence_parallel = true;
  const Plan plan = make_plan(toy_workload({}), parallel, 3);
  EXPECT_EQ(local_rows(plan, Rows::share), 7);
  EXPECT_EQ(local_rows(plan, Rows::all), 21);
  parallel.is_sequence_parallel = false;
  const Plan whole = make_plan(toy_workload({}), parallel, 3);
  EXPECT_EQ(local_rows(whole, Rows::share), 19);
  EXPECT_EQ(local_rows(whole, Rows::all), 19);
}

TEST(Plan, StripsAreEqualWithSequenceParallelismAndDifferByARowWithout) {
  ParallelConfig parallel = grid_of(3, 1, 1);
  parallel.sequence_length = 19;
  parallel.is_sequence_parallel = true;
  parallel.tensor_strips = 2;
  const Plan plan = make_plan(toy_workload({}), parallel, 3);
  EXPECT_EQ(local_rows(plan, Rows::share), 2 * 4);
  EXPECT_EQ(local_rows(plan, Rows::all), 24);
  EXPECT_EQ(local_rows(plan, Rows::exact), 19);
  EXPECT_EQ(strip_rows(plan, 0), 12);
  EXPECT_EQ(strip_rows(plan, 1), 12);
  parallel.is_sequence_parallel = false;
  const Plan whole = make_plan(toy_workload({}), parallel, 3);
  EXPECT_EQ(local_rows(whole, Rows::all), 19);
  EXPECT_EQ(strip_rows(whole, 0), 9);
  EXPECT_EQ(strip_rows(whole, 1), 10);
}

TEST(Plan, StripsThatCannotBeAreRefusedWithTheNumberThatCan) {
  const auto refusal = [](int tensor, int strips, int64_t tokens) {
    ParallelConfig parallel = grid_of(tensor, 1, 1);
    parallel.sequence_length = tokens;
    parallel.tensor_strips = strips;
    try {
      make_plan(toy_workload({}), parallel, tensor);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(refusal(3, 4, 12), "accepted");
  EXPECT_NE(refusal(3, 5, 19).find("parallel.tensor_strips = 5; it is one of 1 to 4"), std::string::npos);
  EXPECT_NE(refusal(1, 2, 19).find("parallel.tensor = 1"), std::string::npos);
  EXPECT_NE(refusal(3, 4, 10).find("a micro-batch of 10 tokens on 3 tensor ranks"), std::string::npos);
  EXPECT_NE(refusal(3, 4, 10).find("set it to 3"), std::string::npos);
}

TEST(Plan, ATensorsBytesFollowItsRowsAndItsCut) {
  ParallelConfig parallel = grid_of(3, 1, 1);
  parallel.sequence_length = 19;
  parallel.is_sequence_parallel = true;
  const Plan plan = make_plan(toy_workload({}), parallel, 3);
  EXPECT_EQ(local_bytes(plan, {.name = "x", .columns = 48, .rows = Rows::share}, 1), 7 * 48 * 4);
  EXPECT_EQ(local_bytes(plan, {.name = "h", .columns = 48, .dtype = DType::bf16}, 1), 21 * 48 * 2);
  // 199 ids over 3 ranks are 66, 66, 67; a chunk has 5 rows of the 21.
  const RowTensor logits{.name = "logits", .columns = 199, .split = Split{.dim = 0}, .max_rows = 5};
  EXPECT_EQ(local_bytes(plan, logits, 1), 5 * 66 * 4);
  EXPECT_EQ(local_bytes(plan, logits, 2), 5 * 67 * 4);
}

TEST(Plan, TheLedgerRoundsAsTheArenaDoes) {
  EXPECT_EQ(ledger_alignment, Arena::alignment);
  Ledger ledger;
  ledger.book("a", MemoryKind::scratch, 1, 3);
  ledger.book("nothing", MemoryKind::scratch, 0, 3);
  EXPECT_EQ(ledger.total_bytes(), 3 * arena_bytes(1));
  EXPECT_EQ(ledger.entries.size(), 1u);
  EXPECT_EQ(bytes_text(12), "12 B");
  EXPECT_EQ(bytes_text(3.25 * 1024 * 1024), "3.25 MiB");
  EXPECT_EQ(bytes_text(16.0 * 1024 * 1024 * 1024), "16.0 GiB");
}

TEST(Plan, TrafficFollowsTheFormulas) {
  // tensor 2: a block's two all-reduces of (24, 48) f32 for each of 8 micro-batches.
  ParallelConfig parallel = grid_of(2, 1, 1);
  Workload workload = toy_workload({});
  for (Unit& unit : workload.units) {
    for (UnitPiece& piece : unit.pieces) piece.piece.layout.has_partial_gradients = false;
  }
  RankTraffic traffic = traffic_of(make_plan(workload, parallel, 2), 1);
  EXPECT_EQ(traffic.tensor.bytes, 8 * 4 * 2 * (2 * 24 * 48 * 4 / 2));
  EXPECT_EQ(traffic.tensor.messages, 8 * 4 * 2);  // each small enough for one round
  EXPECT_EQ(traffic.pipeline.bytes + traffic.data.bytes, 0);
  // In three strips the same bytes in three times the messages.
  parallel.tensor_strips = 3;
  traffic = traffic_of(make_plan(workload, parallel, 2), 1);
  EXPECT_EQ(traffic.tensor.bytes, 8 * 4 * 2 * (2 * 24 * 48 * 4 / 2));
  EXPECT_EQ(traffic.tensor.messages, 8 * 4 * 2 * 3);
  parallel.tensor_strips = 1;
  // Of (192, 48): two rounds.
  parallel.sequence_length = 192;
  traffic = traffic_of(make_plan(workload, parallel, 2), 1);
  EXPECT_EQ(traffic.tensor.bytes, 8 * 4 * 2 * (2 * 192 * 48 * 4 / 2));
  EXPECT_EQ(traffic.tensor.messages, 8 * 4 * 2 * 2);

  // pipeline 2: an activation one way, a gradient the other, for each of 8 micro-batches.
  traffic = traffic_of(make_plan(workload, grid_of(1, 2, 1), 2), 0);
  EXPECT_EQ(traffic.pipeline.bytes, 8 * 24 * 48 * 4);
  EXPECT_EQ(traffic.pipeline.messages, 8);
  EXPECT_EQ(traffic.tensor.bytes + traffic.data.bytes, 0);

  // data 3: reduce-scatter and all-gather of all parameters, two thirds each.
  const Plan plan = make_plan(workload, grid_of(1, 1, 3), 3);
  const FlatLayout layout = flat_layout_of(plan, 0);
  traffic = traffic_of(plan, 2);
  EXPECT_EQ(traffic.data.bytes, 2 * (layout.trainable_elements * 4 * 2 / 3));
  EXPECT_EQ(traffic.data.messages, 2 * 2 * static_cast<int64_t>(layout.buckets.size()));
}

TEST(Plan, WhatACollectiveSendsIsCountedToTheElement) {
  const auto same = [](const Sent& sent, int64_t bytes, int64_t messages) {
    return sent.bytes == bytes && sent.messages == messages;
  };
  EXPECT_TRUE(same(sent_in_all_reduce(30, 4, 0, 3), 2 * 120, 2));
  // 10,000 f32 over 3 ranks: parts of 3,333, 3,333 and 3,334. Each sends the others' and, twice, its own sum.
  EXPECT_TRUE(same(sent_in_all_reduce(10'000, 4, 0, 3), (3333 + 3334 + 2 * 3333) * 4, 4));
  EXPECT_TRUE(same(sent_in_all_reduce(10'000, 4, 2, 3), (3333 + 3333 + 2 * 3334) * 4, 4));
  // 3 MiB over 2 ranks are summed in chunks of 1 MiB and gathered whole.
  EXPECT_TRUE(same(sent_in_reduce_scatter(3 << 20, 2), 3 << 20, 3));
  EXPECT_TRUE(same(sent_in_all_gather(3 << 20, 2), 3 << 20, 1));
  EXPECT_TRUE(same(sent_in_all_gather(0, 4), 0, 0));
}

TEST(Plan, TiedCopiesTravelOnceAStep) {
  ParallelConfig parallel = grid_of(1, 2, 1);
  const RankTraffic apart = traffic_of(make_plan(toy_workload({}, Tied::apart), parallel, 2), 1);
  const RankTraffic untied = traffic_of(make_plan(toy_workload({}), parallel, 2), 1);
  EXPECT_EQ(apart.pipeline.bytes - untied.pipeline.bytes, 199 * 48 * 4);
  EXPECT_EQ(apart.pipeline.messages - untied.pipeline.messages, 1);
}

}  // namespace
}  // namespace ptrain
