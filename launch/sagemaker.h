// What a run does because SageMaker started it. Not for starting jobs there: launch/sagemaker/.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "launch/cli.h"

namespace ptrain::sagemaker {

/// Whether this process belongs to a training job.
bool is_job(const Environment& environment);

/// Leaves the reason of a failure where SageMaker reads it, /opt/ml/output/failure: at most 1,024 characters,
/// its beginning, since SageMaker cuts there. Nothing outside of a training job; an older reason stays, since
/// the first is the cause. `root`: of the files, for tests. Never fails.
void note_failure(const Environment& environment, std::string_view reason,
                  const std::filesystem::path& root = "/");

/// Why these ranks are not the job that was asked for, or empty: SageMaker's hosts without any rank are paid
/// for and stay idle. `hosts`: of each rank.
std::string objection_to_world(const Environment& environment, std::span<const std::string> hosts);

}  // namespace ptrain::sagemaker
