// What one rank sends in a collective between hosts: the rules by which the wires cut it into messages, and
// by which the plan counts them. Pure. Not for NCCL, which cuts in ways of its own.
#pragma once

#include <cstdint>

namespace ptrain {

/// Up to here an all-reduce sends everything to everybody, in one round of messages; above, each rank sums up
/// a part and spreads it: two rounds, but 2 (n - 1) / n instead of n - 1 times the bytes.
inline constexpr int64_t small_all_reduce_bytes = 16 << 10;

/// Reductions travel in chunks of at most this many bytes, so that the scratch which receives them, two sets
/// of one for each other rank, stays small. A pure function of the number of ranks.
int64_t reduce_chunk_bytes(int ranks);

struct Sent {
  int64_t bytes = 0;
  int64_t messages = 0;
};

/// `elements` of `element_bytes` each, summed over `ranks` ranks. What the ranks send may differ by an
/// element or two, where `ranks` does not divide. Example: 30 f32 over 3 ranks, 2 * 120 bytes in 2 messages.
Sent sent_in_all_reduce(int64_t elements, int64_t element_bytes, int rank, int ranks);
/// part_bytes: of one rank, the same for all. (n - 1) parts; a message each, or one for each chunk of it.
Sent sent_in_reduce_scatter(int64_t part_bytes, int ranks);
Sent sent_in_all_gather(int64_t part_bytes, int ranks);

}  // namespace ptrain
