#include "src/train/run_plan.h"

#include "src/model/workload.h"

namespace ptrain {

Plan plan_of(const Config& config, const ModelSpec& spec, int world, Config::Precision precision,
             std::string_view started) {
  check(config.data.sequence_length <= spec.max_positions, ExitCode::usage,
        "data.sequence_length = {}, but the model has {} positions (config.json: max_position_embeddings); "
        "set it to at "
        "most {}",
        config.data.sequence_length, spec.max_positions, spec.max_positions);
  ParallelConfig parallel = parallel_config(config, world, precision);
  parallel.is_sequence_parallel &= parallel.tensor > 1;
  const auto sequence_parallel = parallel.is_sequence_parallel ? SequenceParallel::on : SequenceParallel::off;
  Workload workload = workload_of(spec, sequence_parallel, parallel.pipeline, parallel.types.param);
  workload.model_flops_per_token = training_flops_per_token(spec, config.data.sequence_length);
  return make_plan(workload, parallel, world, started);
}

}  // namespace ptrain
