#include "src/train/run_plan.h"

#include <algorithm>

#include "kernels/ops/scratch.h"
#include "src/model/products.h"
#include "src/model/workload.h"

namespace ptrain {

ScratchSizes scratch_sizes(const ModelSpec& spec, const ParallelConfig& parallel, const Compute& compute) {
  const int64_t tp = parallel.tensor;
  const auto share = [&](int64_t whole) { return (whole + tp - 1) / tp; };
  const int64_t shares = tp * parallel.tensor_strips;
  const int64_t rows =
      strip_share(parallel.micro * parallel.sequence_length, parallel.tensor, parallel.tensor_strips) *
      shares;
  return {.B = parallel.micro,
          .T = parallel.sequence_length,
          .N = rows,
          .C = spec.C,
          .F = share(spec.F),
          .V = share(spec.V),
          .H = share(spec.H),
          .K = std::min(spec.K, share(spec.K) + 1),  // a KV head may lie on two ranks
          .D = spec.D,
          .dtype = parallel.types.param,
          .is_fp8 = compute.precision == Config::Precision::fp8};
}

int tensor_strips_of(const Config& config, const ParallelConfig& parallel, const Compute& compute) {
  if (parallel.tensor == 1) return 1;
  const bool is_fp8 = compute.precision == Config::Precision::fp8;
  const int chosen = config.parallel.tensor_strips.value_or(0);
  check(
      chosen <= 1 || !is_fp8, ExitCode::usage,
      "parallel.tensor_strips = {} with precision fp8: every strip would quantise the weights again; set it "
      "to 1 or auto",
      chosen);
  if (chosen > 0) return chosen;
  constexpr int64_t rows_of_a_strip = 1024;  // that a GPU multiplies as fast, row by row, as more of them
  const int64_t rows = parallel.micro * parallel.sequence_length;
  return compute.device == DeviceKind::cuda && !is_fp8 && rows >= 2 * rows_of_a_strip ? 2 : 1;
}

void book_scratch(Workload& workload, const ScratchSizes& sizes, DeviceKind device) {
  workload.op_scratch_bytes = op_scratch_bytes(device, sizes);
  for (Unit& unit : workload.units)
    if (unit.kind == UnitKind::block) unit.scratch_bytes = product_scratch_bytes(sizes);
}

Plan plan_of(const Config& config, const ModelSpec& spec, int world, const Compute& compute,
             std::string_view started) {
  return plan_for(config, spec, parallel_config(config, world, compute.precision), world, compute, started);
}

Plan plan_for(const Config& config, const ModelSpec& spec, ParallelConfig parallel, int world,
              const Compute& compute, std::string_view started) {
  check(config.data.sequence_length <= spec.max_positions, ExitCode::usage,
        "data.sequence_length = {}, but the model has {} positions (config.json: max_position_embeddings); "
        "set it to at "
        "most {}",
        config.data.sequence_length, spec.max_positions, spec.max_positions);
  check_offload(parallel, compute);
  parallel.is_sequence_parallel &= parallel.tensor > 1;
  parallel.tensor_strips = tensor_strips_of(config, parallel, compute);
  const auto sequence_parallel = parallel.is_sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
  Workload workload = workload_of(spec, sequence_parallel, stages_of(parallel), parallel.types.param);
  workload.model_flops_per_token = training_flops_per_token(spec, config.data.sequence_length);
  const ScratchSizes sizes = scratch_sizes(spec, parallel, compute);
  const std::string objection = sizes.is_fp8 ? objection_to_fp8(sizes, sizes.N) : "";
  check(objection.empty(), ExitCode::usage, "{}", objection);
  book_scratch(workload, sizes, compute.device);
  return make_plan(workload, parallel, world, started);
}

}  // namespace ptrain
