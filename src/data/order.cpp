#include "src/data/order.h"

#include <limits>
#include <numeric>

#include "kernels/base/error.h"
#include "kernels/base/rng.h"

namespace ptrain {

std::vector<uint32_t> sample_order(int64_t count, uint64_t seed, int64_t epoch, Shuffle shuffle) {
  check(count >= 0 && count <= std::numeric_limits<uint32_t>::max(), ExitCode::input,
        "{} samples in one data set; at most {} are supported: join short ones into longer rows", count,
        std::numeric_limits<uint32_t>::max());
  std::vector<uint32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), uint32_t{0});
  if (shuffle == Shuffle::off) return order;
  // Fisher and Yates; the number drawn at position i belongs to (seed, epoch, i) and to nothing else.
  const Rng rng(seed, hash_of("data order") + static_cast<uint64_t>(epoch));
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i, i)]);
  return order;
}

}  // namespace ptrain
