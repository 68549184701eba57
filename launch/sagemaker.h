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
/// the first is the cause. Whole or not at all, whichever ranks of a host do it at once. `root`: of the
/// files, for tests. Never fails.
void note_failure(const Environment& environment, std::string_view reason,
                  const std::filesystem::path& root = "/");

/// Whether the trained model is to lie in /opt/ml/model, which SageMaker packs and stores: PTRAIN_SM_MODEL=1.
/// Errors: usage, where it is neither 1 nor 0.
bool wants_model(const Environment& environment);

/// Copies a model's files into /opt/ml/model. `root`: as above. Errors: resources, e.g. a full disk.
void copy_model(const std::filesystem::path& model, const std::filesystem::path& root = "/");

/// Why these ranks are not the job that was asked for, or empty: hosts without any rank are paid for and stay
/// idle, and where the SDK says how many ranks a host has, there are as many times the hosts. `hosts`: of
/// each rank.
std::string objection_to_world(const Environment& environment, std::span<const std::string> hosts);

}  // namespace ptrain::sagemaker
