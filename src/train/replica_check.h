// Whether ranks that hold the same weights hold the same bits: a flipped bit or a faulty machine shows in no
// loss. Not for two runs (agreement) and not for files (crc32c over extents).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "src/train/trainer.h"

namespace ptrain {

/// What a rank holds of a tensor, as a number: equal keys are replicas.
struct ReplicaRecord {
  int64_t key = 0;   // of name, box and range
  int64_t unit = 0;  // of the tensor, as in Workload
  int64_t piece = 0;
  int64_t sum = 0;  // checksum of the bits
};

/// Replicas that differ.
struct ReplicaFault {
  int64_t unit = 0, piece = 0;  // of the first tensor that does
  int64_t tensors = 0;          // how many do
  std::vector<int> suspects;  // ranks that the majority of the first tensor's replicas speaks against; all of
                              // them where there is none
  std::vector<int> others;    // the ranks that agree with each other; empty where there is no majority
};

/// [rank]: its records. Nothing where all replicas are equal.
std::optional<ReplicaFault> compare_replicas(std::span<const std::vector<ReplicaRecord>> ranks);

/// Compares the weights over the data axis, those that are replicated over the tensor axis there as well, and
/// both ends of a tied table. A KV head on several ranks counts only where they hold the same heads. Under
/// ZeRO-3 nothing is held twice over the data axis. Under ZeRO 1 and 2 a replica is written anew at every
/// step from the rank that updates it: a flipped bit in a copy is seen in its step alone, and one in the
/// original reaches all copies, which no comparison finds.
class ReplicaCheck {
 public:
  /// A collective of `world`, which is of the host, not the one tensors travel on.
  ReplicaCheck(Trainer& trainer, Communicator& world);

  /// Between steps; waits for the exchange of the last one. Of n replicas one counts its checksum n - 1 times
  /// and the others take theirs off, each tensor with an odd factor of its own: over all ranks the sum modulo
  /// 2^64 is 0 where all replicas are equal, and else by chance once in 2^64.
  uint64_t imbalance();
  /// A collective: which they are.
  std::optional<ReplicaFault> find();

 private:
  std::vector<std::vector<ReplicaRecord>> gathered() const;

  Trainer& trainer_;
  Communicator& world_;
  std::vector<ReplicaRecord> mine_;  // what other ranks hold too, as the layers read it; under ZeRO-3 shards
  std::vector<WeighedPart> parts_;   // the same
  std::vector<int64_t> words_;       // [rank]: of its records
};

/// "model.norm.weight and 2 more tensors: rank 3 (host b) holds other values than ranks 0, 1, 2".
std::string to_string(const ReplicaFault& fault, const Plan& plan, std::span<const std::string> hosts);

}  // namespace ptrain
