#include "src/train/config_check.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "parallel/plan/combinations.h"
#include "parallel/plan/placement.h"
#include "src/io/fetch.h"
#include "src/train/config_plan.h"

namespace ptrain {
namespace {

using C = Config;

void check_mesh(const LoadedConfig& loaded, const WorldSize& world) {
  const C::Parallel& parallel = loaded.config.parallel;
  const int64_t replica = int64_t{parallel.tensor} * parallel.pipeline;
  const std::string_view key = loaded.is_set("parallel.data")     ? "parallel.data"
                               : loaded.is_set("parallel.tensor") ? "parallel.tensor"
                                                                  : "parallel.pipeline";
  const std::string where = loaded.where(key);
  const std::string ranks =
      fmt::format("{} {} rank{}", world.source, world.ranks, world.ranks == 1 ? "" : "s");
  if (!parallel.data) {
    const int64_t enough = std::max<int64_t>(1, world.ranks / replica) * replica;
    check(world.ranks % replica == 0, ExitCode::usage,
          "{}: tensor * pipeline = {} * {} = {} does not divide the world: {}; start {} ranks, or change the "
          "mesh",
          where, parallel.tensor, parallel.pipeline, replica, ranks, enough);
    return;
  }
  const int64_t product = replica * *parallel.data;
  if (product == world.ranks) return;
  const std::string fix = world.ranks % replica == 0
                              ? fmt::format(", or set parallel.data to {} or auto", world.ranks / replica)
                              : std::string(", or change the mesh");
  fail(ExitCode::usage, "{}: tensor * pipeline * data = {} * {} * {} = {}, but {}; start {} rank{}{}", where,
       parallel.tensor, parallel.pipeline, *parallel.data, product, ranks, product, product == 1 ? "" : "s",
       fix);
}

/// Tensor groups inside a host, where the hosts are known. After check_mesh.
void check_hosts(const LoadedConfig& loaded, const WorldSize& world) {
  const C::Parallel& parallel = loaded.config.parallel;
  if (world.hosts.empty() || parallel.allow_tensor_across_nodes) return;
  const Mesh mesh{.pipeline = parallel.pipeline,
                  .data = data_ranks(loaded.config, world.ranks),
                  .tensor = parallel.tensor};
  check_tensor_groups(mesh, world.hosts, loaded.where("parallel.tensor"));
}

void check_batch(const LoadedConfig& loaded, const WorldSize& world) {
  const C::Batch& batch = loaded.config.batch;
  const int data = data_ranks(loaded.config, world.ranks);
  const int64_t unit = batch.micro * data;
  if (batch.global % unit == 0) return;
  const int64_t below = batch.global / unit * unit;
  const std::string nearest =
      below > 0 ? fmt::format("{} or {}", below, below + unit) : fmt::format("{}", unit);
  fail(ExitCode::usage,
       "{}: global = {} is not a multiple of micro * data = {} * {} = {}; take {}, or change batch.micro or "
       "parallel.data",
       loaded.where("batch.global"), batch.global, batch.micro, data, unit, nearest);
}

/// Schedules, stages a rank, ZeRO, recompute against each other. After check_mesh and check_batch.
void check_combinations(const LoadedConfig& loaded, const WorldSize& world) {
  const ParallelConfig parallel = parallel_config(loaded.config, world.ranks, Config::Precision::fp32);
  const int64_t micros = parallel.global / (parallel.micro * parallel.data);
  if (const auto objection = objection_to(parallel, micros)) {
    fail(ExitCode::usage, "{}{}", loaded.where(objection->key), objection->text);
  }
}

/// What shall come from S3 or go there is named as S3 programs take it.
void check_s3(const LoadedConfig& loaded) {
  const C& config = loaded.config;
  if (config.checkpoint.upload) s3_place(*config.checkpoint.upload, loaded.where("checkpoint.upload"));
  if (is_s3(config.model.path)) s3_place(config.model.path, loaded.where("model.path"));
  for (const std::string& file : config.data.train) {
    if (is_s3(file)) s3_pattern(file, loaded.where("data.train"));
  }
  for (const std::string& file : config.data.validation) {
    if (is_s3(file)) s3_pattern(file, loaded.where("data.validation"));
  }
  check(!is_s3(config.data.special_tokens.value_or("")), ExitCode::usage,
        "{} = {}: it is read from a disk; bring the file to every host", loaded.where("data.special_tokens"),
        config.data.special_tokens.value_or(""));
  check(!is_s3(config.output), ExitCode::usage,
        "{} = {}: a run writes to a disk; give a directory here, and checkpoint.upload for copies in S3",
        loaded.where("output"), config.output);
  check(config.checkpoint.upload_bytes_per_s == 0 || config.checkpoint.upload, ExitCode::usage,
        "{} = {:g} needs checkpoint.upload, which is null", loaded.where("checkpoint.upload_bytes_per_s"),
        config.checkpoint.upload_bytes_per_s);
}

/// Keys that mean nothing without others: said, not ignored.
void check_companions(const LoadedConfig& loaded) {
  const C& config = loaded.config;
  check(config.evaluation.every == 0 || !config.data.validation.empty(), ExitCode::usage,
        "{} = {} needs files in data.validation, which is empty", loaded.where("evaluation.every"),
        config.evaluation.every);
  const int strips = config.parallel.tensor_strips.value_or(1);
  check(strips == 1 || config.parallel.tensor > 1, ExitCode::usage,
        "{} = {} needs parallel.tensor above 1: only a tensor group sends inside layers; set it to 1 or auto",
        loaded.where("parallel.tensor_strips"), strips);
  check(config.checkpoint.replicas == 1 || config.checkpoint.storage != C::Storage::shared, ExitCode::usage,
        "{} = {} needs checkpoint.storage per_node, not shared; set it to 1",
        loaded.where("checkpoint.replicas"), config.checkpoint.replicas);
  check(config.checkpoint.replicas <= 2, ExitCode::usage, "{} = {}: a part is kept on 1 or 2 nodes",
        loaded.where("checkpoint.replicas"), config.checkpoint.replicas);
  check(config.checkpoint.replicas == 1 || config.checkpoint.keep != 1, ExitCode::usage,
        "{} = {} needs checkpoint.keep of at least 2: while the newest is copied, only the one before has "
        "copies",
        loaded.where("checkpoint.replicas"), config.checkpoint.replicas);
  check(config.train.hang_timeout_s == 0 || config.train.hang_timeout_s >= 1, ExitCode::usage,
        "{} = {:g}: a shorter pause than 1 s is no hang; take 0 (no watch) or at least 1",
        loaded.where("train.hang_timeout_s"), config.train.hang_timeout_s);
  check_s3(loaded);
}

}  // namespace

void check_config(const LoadedConfig& loaded, const WorldSize& world) {
  check(world.ranks >= 1, "a world of {} ranks", world.ranks);
  check_companions(loaded);
  check_mesh(loaded, world);
  check_hosts(loaded, world);
  check_batch(loaded, world);
  check_combinations(loaded, world);
}

}  // namespace ptrain
