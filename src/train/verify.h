// ptrain verify: two steps of a run under several plans on the same ranks, which must agree. Writes no file.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/train/agreement.h"
#include "src/train/config_load.h"

namespace ptrain {

struct VerifyRequest {
  size_t most = 8;                          // variants beside the configuration's own plan
  std::span<const std::string> hosts = {};  // of each rank; empty = not known
  /// What every rank may hold; empty = what is there, see memory_of_ranks.
  std::optional<int64_t> rank_bytes = {};
  std::function<void(std::string_view)> say;  // a line of the table; called on rank 0 alone
  /// Called when a variant's weights are loaded (step 0) and after each of its two steps, before they are
  /// looked at: for tests, which plant faults there.
  std::function<void(const Variant& variant, int step, Trainer& trainer)> after_step = {};
};

/// Of a variant, or of the configuration's own plan where that is wrong by itself.
struct VariantReport {
  std::string name;
  Expected expected = Expected::same_bits;
  std::string skipped;     // why it was not tried: memory; else empty
  std::string difference;  // the first thing that differs from the reference, or empty
};

/// A collective: trains the first two steps that have supervised tokens, with the configuration's own plan
/// and then with each variant of it, from the same weights and rows; one model in memory at a time. Returns
/// the variants' reports, the same on every rank. Errors: as a run's.
std::vector<VariantReport> verify_run(const LoadedConfig& loaded, const VerifyRequest& request,
                                      Communicator& world, const RunDevice& device);

/// One line for the end: that all agree, or how many do not and the first of them.
std::string verdict(const std::vector<VariantReport>& reports);
/// A collective. Errors, agreed on: ExitCode::numerical where a variant differs.
void check_agreement(const std::vector<VariantReport>& reports, Communicator& world);

}  // namespace ptrain
