#include "parallel/plan/estimate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "tests/parallel/plan/random_cases.h"

namespace ptrain {
namespace {

const ToySizes big{.V = 32'000, .C = 1024, .L = 32, .H = 32, .K = 32, .D = 32, .F = 2816};

ParallelConfig config_of(int tensor, int pipeline, int data, int64_t micros) {
  return {.tensor = tensor,
          .pipeline = pipeline,
          .data = data,
          .is_sequence_parallel = tensor > 1,
          .global = micros * data,
          .sequence_length = 1536,
          .types = {.param = DType::bf16, .grad = DType::bf16}};
}

Plan estimated_plan(const ParallelConfig& parallel, double model_flops_per_token = 0) {
  Workload workload = toy_workload(big);
  workload.model_flops_per_token = model_flops_per_token;
  return make_plan(workload, parallel, parallel.tensor * parallel.pipeline * parallel.data);
}

double unit_flops(const Plan& plan) {
  double flops = 0;
  for (const Unit& unit : plan.workload.units) flops += unit.forward_flops + unit.backward_flops;
  return flops;
}

TEST(Estimate, AxesLeaveANodeWhereTheirGroupsDo) {
  const auto text = [](const Mesh& mesh, int ranks_per_node) {
    const Crossing crossing = crossing_of(mesh, ranks_per_node);
    return std::string(crossing.tensor ? "t" : "") + (crossing.data ? "d" : "") +
           (crossing.pipeline ? "p" : "");
  };
  EXPECT_EQ(text({.pipeline = 2, .data = 2, .tensor = 2}, 8), "");
  EXPECT_EQ(text({.pipeline = 2, .data = 2, .tensor = 4}, 8), "p");
  EXPECT_EQ(text({.pipeline = 1, .data = 4, .tensor = 4}, 8), "d");
  EXPECT_EQ(text({.pipeline = 1, .data = 1, .tensor = 16}, 8), "t");
  EXPECT_EQ(text({.pipeline = 2, .data = 2, .tensor = 3}, 8), "tdp");
}

TEST(Estimate, ARingHasTheNetworkOfAllItsRanksOnANode) {
  Hardware hardware = hardware_of("a100-40");
  const double rank = hardware.network_bytes_per_s * hardware.network_reaches;
  const double links = hardware.link_bytes_per_s * hardware.links_reach;
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::data, {.data = 8}, hardware), links);
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::data, {.data = 16}, hardware), 8 * rank);
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::data, {.data = 4, .tensor = 4}, hardware), 2 * rank);
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::data, {.data = 4, .tensor = 8}, hardware), rank);
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::tensor, {.tensor = 16}, hardware), 8 * rank);
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::pipeline, {.pipeline = 16}, hardware), rank);
  hardware.has_rings = false;
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::data, {.data = 16}, hardware), rank);
  // Never faster than the links that lead to the network.
  hardware.has_rings = true;
  hardware.network_bytes_per_s = 1e15;
  EXPECT_DOUBLE_EQ(bytes_per_s_along(Axis::data, {.data = 16}, hardware), links);
}

TEST(Estimate, OneRankReachesWhatItsProductsReach) {
  Plan plan = estimated_plan(config_of(1, 1, 1, 8));
  // Model FLOPs as the workload counts them: then only the update is lost.
  const double flops = unit_flops(plan);
  plan.workload.model_flops_per_token = flops;
  const Hardware hardware = hardware_of("h100");
  const Estimate estimate = estimate_of(plan, hardware);
  EXPECT_NEAR(estimate.report.step_s, flops * 8 * 1536 / (hardware.peak_flops * hardware.reachable), 1e-9);
  EXPECT_NEAR(estimate.mfu, hardware.reachable * estimate.report.step_s / estimate.step_s, 1e-9);
  EXPECT_EQ(estimate.gather_s, 0);
  EXPECT_EQ(estimate.exposed_s, 0);
  EXPECT_GT(estimate.update_s, 0);
}

TEST(Estimate, AttentionThatNoUnitCountsTakesItsTime) {
  Plan plan = estimated_plan(config_of(1, 1, 1, 8));
  const double flops = unit_flops(plan);
  plan.workload.model_flops_per_token = flops;
  const double without_s = estimate_of(plan, hardware_of("h100")).report.step_s;
  plan.workload.model_flops_per_token = 1.25 * flops;
  EXPECT_NEAR(estimate_of(plan, hardware_of("h100")).report.step_s, 1.25 * without_s, 1e-9);
}

TEST(Estimate, SlowerNetworksTakeLonger) {
  const Plan plan = estimated_plan(config_of(4, 2, 4, 8));
  Hardware hardware = hardware_of("h100");
  const Estimate fast = estimate_of(plan, hardware);
  hardware.network_bytes_per_s /= 100;
  const Estimate slow = estimate_of(plan, hardware);
  EXPECT_GT(slow.step_s, fast.step_s);
  EXPECT_GT(slow.data_s, fast.data_s);
  EXPECT_GT(slow.transfer_s, fast.transfer_s);
  EXPECT_DOUBLE_EQ(slow.tensor_s, fast.tensor_s);  // stays inside the node
}

TEST(Estimate, TheGatherOfParametersHidesUnderTheFirstForward) {
  const ParallelConfig parallel = config_of(1, 1, 16, 8);
  const Plan plan = estimated_plan(parallel);
  Hardware hardware = hardware_of("h100");
  double bytes = 0;
  for (const FlatBucket& bucket : flat_layout_of(plan, 0).buckets)
    bytes += static_cast<double>(bucket.elements.count * size_bytes(DType::bf16));
  const double whole_s = bytes * 15 / 16 / bytes_per_s_along(Axis::data, plan.mesh, hardware);
  const double hidden_s = estimate_of(plan, hardware).gather_s;
  EXPECT_GT(hidden_s, 0);  // the first bucket hides under nothing
  EXPECT_LT(hidden_s, whole_s);
  // Where computing takes no time, nothing is hidden.
  hardware.peak_flops = 1e30;
  EXPECT_NEAR(estimate_of(plan, hardware).gather_s, whole_s, 1e-6 * whole_s);
  ParallelConfig replicated = parallel;
  replicated.zero = 0;
  EXPECT_EQ(estimate_of(estimated_plan(replicated), hardware).gather_s, 0);
}

TEST(Estimate, WhatIsExposedIsTheSumOfItsParts) {
  const Estimate estimate = estimate_of(estimated_plan(config_of(4, 2, 4, 8)), hardware_of("a100-40"));
  EXPECT_DOUBLE_EQ(estimate.exposed_s, estimate.tensor_s + estimate.transfer_s + estimate.data_s);
  EXPECT_LT(estimate.exposed_s, estimate.step_s);
  EXPECT_GE(estimate.data_s, estimate.report.exposed_reduce_s + estimate.gather_s);
  EXPECT_GT(estimate.tensor_s, 0);
}

/// Where computing takes no time, every byte that traffic_of counts shows.
TEST(Estimate, WithoutComputeTheDataAxisTakesWhatItsTrafficTakes) {
  Hardware hardware = hardware_of("h100");
  hardware.peak_flops = hardware.memory_bytes_per_s = 1e30;
  for (const int zero : {0, 1, 2, 3}) {
    for (const int64_t micros : {1, 4}) {
      ParallelConfig parallel = config_of(1, 1, 8, micros);
      parallel.zero = zero;
      const Plan plan = estimated_plan(parallel);
      const double bytes = static_cast<double>(traffic_of(plan, 0).data.bytes);
      const double seconds = bytes / bytes_per_s_along(Axis::data, plan.mesh, hardware);
      EXPECT_NEAR(estimate_of(plan, hardware).data_s, seconds, 1e-6 * seconds) << zero << " " << micros;
    }
  }
}

TEST(Estimate, TensorCollectivesTakeWhatTheirTrafficTakes) {
  const Hardware hardware = hardware_of("h100");
  Workload workload = toy_workload(big);
  for (Unit& unit : workload.units) {
    for (UnitPiece& piece : unit.pieces) piece.piece.layout.has_partial_gradients = false;
    for (UnitCollective& collective : unit.collectives) collective.is_made_again = !collective.is_backward;
  }
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
    for (const int64_t blocks : {int64_t{3}, all_blocks}) {
      ParallelConfig parallel = config_of(4, 2, 1, 6);
      parallel.recompute = recompute;
      parallel.recompute_blocks = blocks;
      const Plan plan = make_plan(workload, parallel, 8);
      double bytes = 0;
      for (const int rank : typical_ranks(plan))
        bytes = std::max(bytes, static_cast<double>(traffic_of(plan, rank).tensor.bytes));
      const double seconds = bytes / bytes_per_s_along(Axis::tensor, plan.mesh, hardware);
      EXPECT_NEAR(estimate_of(plan, hardware).tensor_s, seconds, 1e-6 * seconds);
    }
  }
}

// t seconds in s strips beside a product of p seconds, and b seconds of others: max(t - p (s - 1) / s, t / s)
// - b.
TEST(Estimate, TensorCollectivesHideUnderTheProductsBesideThem) {
  const Hardware hardware = hardware_of("h100");
  const auto tensor_s = [&](int strips, double product, double beside, const Hardware& on) {
    Workload workload = toy_workload(big);
    for (Unit& unit : workload.units) {
      for (UnitPiece& piece : unit.pieces) piece.piece.layout.has_partial_gradients = false;
      for (UnitCollective& collective : unit.collectives) {
        collective.product_flops = product;
        collective.beside_flops = beside;
      }
    }
    ParallelConfig parallel = config_of(4, 1, 1, 1);
    parallel.tensor_strips = strips;
    const Plan plan = make_plan(workload, parallel, 4);
    return estimate_of(plan, on).tensor_s;
  };
  // A block has two collectives of t seconds each. p and b as multiples of t.
  const double all_s = tensor_s(1, 0, 0, hardware), t = all_s / static_cast<double>(2 * big.L);
  const double flops = t * hardware.peak_flops * hardware.reachable * 4 / 1536;
  const auto share = [&](int strips, double p, double b) {
    return tensor_s(strips, p * flops, b * flops, hardware) / all_s;
  };
  EXPECT_NEAR(share(1, 5, 0), 1, 1e-9);    // one strip hides under no product of its own
  EXPECT_NEAR(share(2, 5, 0), 0.5, 1e-9);  // the last one never does
  EXPECT_NEAR(share(4, 5, 0), 0.25, 1e-9);
  EXPECT_NEAR(share(2, 0.4, 0), 0.8, 1e-9);  // a product that is too short
  EXPECT_NEAR(share(1, 0, 0.3), 0.7, 1e-9);
  EXPECT_NEAR(share(2, 5, 0.3), 0.2, 1e-9);
  EXPECT_NEAR(share(2, 5, 2), 0, 1e-9);
  // A CPU has no second stream.
  Hardware cpu = hardware;
  cpu.host_link_bytes_per_s = 0;
  EXPECT_NEAR(tensor_s(2, 5 * flops, flops, cpu), all_s, 1e-9 * all_s);
}

TEST(Estimate, ShardingEveryMicroBatchCostsOnlyWhatComputeDoesNotHide) {
  const Hardware hardware = hardware_of("h100");
  ParallelConfig parallel = config_of(1, 1, 16, 4);
  parallel.micro = 4;
  parallel.global *= 4;
  std::vector<Estimate> estimates;
  for (const int zero : {1, 2, 3}) {
    parallel.zero = zero;
    estimates.push_back(estimate_of(estimated_plan(parallel), hardware));
  }
  // The slower the network, the more of it shows, and ZeRO-3 moves more than ZeRO-2.
  Hardware slow = hardware;
  slow.network_bytes_per_s /= 10;
  double before_s = 0;
  for (const int zero : {1, 2, 3}) {
    parallel.zero = zero;
    const Plan plan = estimated_plan(parallel);
    const Estimate estimate = estimate_of(plan, slow);
    EXPECT_GT(estimate.data_s, estimates[static_cast<size_t>(zero - 1)].data_s);
    EXPECT_GT(estimate.data_s, before_s) << zero;
    before_s = estimate.data_s;
    // Never more than all of the traffic.
    EXPECT_LT(estimate.data_s, static_cast<double>(traffic_of(plan, 0).data.bytes) /
                                   bytes_per_s_along(Axis::data, plan.mesh, slow));
  }
}

TEST(Estimate, RecomputeCostsItsFlopsAndWhatTheNormsLeaveItsBytes) {
  Workload workload = toy_workload(big);
  double again = 0, forward = 0, backward = 0;
  for (Unit& unit : workload.units) {
    forward += unit.forward_flops;
    backward += unit.backward_flops;
    if (unit.kind != UnitKind::block) continue;
    unit.again_flops = unit.forward_flops;
    again += unit.again_flops;
    unit.kept.push_back({.name = "h", .columns = big.C, .made_again = Recompute::selective});
  }
  Hardware hardware = hardware_of("h100");
  const auto step_s = [&](Recompute recompute, int64_t blocks) {
    ParallelConfig parallel = config_of(1, 1, 1, 8);
    parallel.recompute = recompute;
    parallel.recompute_blocks = blocks;
    return estimate_of(make_plan(workload, parallel, 1), hardware).report.step_s;
  };
  const double none_s = step_s(Recompute::none, all_blocks);
  // A block's tensor of 1536 rows and C columns of f32, read and written, for 8 micro-batches and 32 blocks.
  const double remade_s = 2.0 * 1536 * 1024 * 4 * 8 * 32 / hardware.memory_bytes_per_s;
  EXPECT_NEAR(step_s(Recompute::selective, all_blocks), none_s + remade_s, 1e-9);
  const double full_s = none_s * again / (forward + backward);
  EXPECT_NEAR(step_s(Recompute::full, all_blocks), none_s + full_s + remade_s, 1e-9);
  EXPECT_NEAR(step_s(Recompute::full, 8), none_s + (full_s + remade_s) / 4, 1e-9);
}

TEST(Estimate, EverySchedulesBubbleIsThatOfItsFormulaWhereMessagesAreFree) {
  Hardware hardware = hardware_of("h100");
  hardware.link_bytes_per_s = hardware.network_bytes_per_s = hardware.memory_bytes_per_s = 1e30;
  Workload workload = toy_workload({.V = 8, .C = 64, .L = 16, .H = 8, .K = 8, .D = 8, .F = 128});
  for (Unit& unit : workload.units) {  // equal stages: the ends cost nothing
    if (unit.kind != UnitKind::block) unit.forward_flops = unit.backward_flops = 0;
  }
  const auto bubble = [&](ScheduleName schedule, int stages) {
    ParallelConfig parallel = config_of(1, 4, 1, 16);
    parallel.schedule = schedule;
    parallel.virtual_stages = stages;
    return estimate_of(make_plan(workload, parallel, 4), hardware).bubble;
  };
  EXPECT_NEAR(bubble(ScheduleName::gpipe, 1), textbook_bubble(4, 16), 1e-6);
  EXPECT_NEAR(bubble(ScheduleName::one_f_one_b, 1), textbook_bubble(4, 16), 1e-6);
  EXPECT_NEAR(bubble(ScheduleName::interleaved, 2), interleaved_bubble(4, 16, 2), 1e-6);
  EXPECT_NEAR(bubble(ScheduleName::interleaved, 4), interleaved_bubble(4, 16, 4), 1e-6);
  EXPECT_NEAR(bubble(ScheduleName::zero_bubble, 1), zero_bubble_h1_bubble(4, 16), 1e-6);
}

TEST(Estimate, SumsThatNoGridChangesPassMemoryOncePerMicroBatch) {
  Hardware hardware = hardware_of("h100");
  ParallelConfig parallel = config_of(1, 1, 1, 8);
  const double plain_s = estimate_of(estimated_plan(parallel), hardware).report.step_s;
  parallel.is_grid_invariant = true;
  const Plan plan = estimated_plan(parallel);
  const auto elements = static_cast<double>(flat_layout_of(plan, 0).trainable_elements);
  // Gradients are bf16 here: two reads and a write of 2 bytes, eight times.
  EXPECT_NEAR(estimate_of(plan, hardware).report.step_s,
              plain_s + 8 * 3 * 2 * elements / hardware.memory_bytes_per_s, 1e-9);
}

TEST(Estimate, AnOffloadedUpdateRunsAtTheHostsPace) {
  ParallelConfig parallel = config_of(1, 1, 4, 4);
  const Hardware hardware = hardware_of("h100");
  const double on_device_s = estimate_of(estimated_plan(parallel), hardware).update_s;
  parallel.offload = Offload::optimizer;
  const Plan plan = estimated_plan(parallel);
  const Estimate estimate = estimate_of(plan, hardware);
  EXPECT_GT(estimate.update_s, on_device_s);
  const auto elements = static_cast<double>(shard_elements(flat_layout_of(plan, 0)));
  // Its gradient, moments and master pass the host's memory; the gradient, bf16 here, the link.
  EXPECT_NEAR(estimate.update_s, elements * (2 + 4 * 4 + 2 * 4 + 2) / hardware.host_bytes_per_s, 1e-9);
  Hardware narrow = hardware;
  narrow.host_link_bytes_per_s = 1e8;
  EXPECT_NEAR(estimate_of(plan, narrow).update_s, elements * 2 / 1e8, 1e-6);
}

TEST(Estimate, ItFitsWithWhatIsReservedOrNot) {
  const Plan plan = estimated_plan(config_of(1, 1, 1, 1));
  Hardware hardware = hardware_of("cpu:16");
  const auto most = static_cast<int64_t>(estimate_of(plan, hardware).most_bytes);
  EXPECT_EQ(most, ledger_of(plan, 0).total_bytes());
  hardware.memory_bytes = most + hardware.reserved_bytes;
  EXPECT_TRUE(estimate_of(plan, hardware).does_fit);
  --hardware.memory_bytes;
  EXPECT_FALSE(estimate_of(plan, hardware).does_fit);
}

}  // namespace
}  // namespace ptrain
