#include "parallel/plan/sent.h"

#include <algorithm>

#include "parallel/plan/layout.h"

namespace ptrain {
namespace {

constexpr int64_t alignment = 64;
constexpr int64_t scratch_limit = int64_t{8} << 20;
constexpr int64_t max_chunk_bytes = int64_t{1} << 20;
constexpr int64_t min_chunk_bytes = int64_t{4} << 10;

int64_t chunks_of(int64_t bytes, int ranks) {
  const int64_t chunk = reduce_chunk_bytes(ranks);
  return (bytes + chunk - 1) / chunk;
}

}  // namespace

int64_t reduce_chunk_bytes(int ranks) {
  if (ranks < 2) return max_chunk_bytes;
  const int64_t share = scratch_limit / (2 * (ranks - 1)) / alignment * alignment;
  return std::clamp(share, min_chunk_bytes, max_chunk_bytes);
}

Sent sent_in_all_reduce(int64_t elements, int64_t element_bytes, int rank, int ranks) {
  const int64_t bytes = elements * element_bytes;
  const int64_t others = ranks - 1;
  if (bytes <= small_all_reduce_bytes) return {others * bytes, others * chunks_of(bytes, ranks)};
  Sent sent;
  const int64_t own = part_of(elements, rank, ranks).count * element_bytes;
  for (int peer = 0; peer < ranks; ++peer) {
    if (peer == rank) continue;
    sent.messages += chunks_of(part_of(elements, peer, ranks).count * element_bytes, ranks);
  }
  sent.bytes = bytes - own + others * own;
  sent.messages += others;
  return sent;
}

Sent sent_in_reduce_scatter(int64_t part_bytes, int ranks) {
  return {(ranks - 1) * part_bytes, (ranks - 1) * chunks_of(part_bytes, ranks)};
}

Sent sent_in_all_gather(int64_t part_bytes, int ranks) {
  return part_bytes == 0 ? Sent{} : Sent{(ranks - 1) * part_bytes, ranks - 1};
}

}  // namespace ptrain
