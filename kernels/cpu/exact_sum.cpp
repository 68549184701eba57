// Sums of squares in integers on a CPU: bound by additions to bins, so several sets of them take turns, that
// one addition does not wait for the one before.
#include "kernels/ops/exact_sum.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "kernels/cpu/dtype_switch.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/twins.h"

namespace ptrain::cpu {
namespace {

constexpr int64_t sets = 4;
/// Elements of a run: so many squares of 24 bits fit 64 bits.
constexpr int64_t run = 1 << 16;
constexpr uint32_t special = exact_bins - 1;  // exponent bits of infinity and NaN

struct Bins {
  int64_t at[exact_bins][2] = {};
};

/// One set of sums of m^2, by exponent.
using Sums = uint64_t[exact_bins];

inline void add_square(float x, Sums& sums) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), e = bits >> 23 & 0xffu;
  const uint64_t m = (bits & 0x7fffffu) | (e != 0 ? 0x800000u : 0u);
  sums[e] += m * m;
}

template <class S>
void count_specials(const S* x, int64_t count, Bins& bins) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = convert<float>(x[i]);
    bins.at[special][0] += std::isinf(value);
    bins.at[special][1] += std::isnan(value);
  }
}

/// At most a run's elements.
template <class S>
void add_run(const S* x, int64_t count, Bins& bins) {
  Sums sums[sets] = {};
  int64_t i = 0;
  for (; i + sets <= count; i += sets) {
    for (int64_t set = 0; set < sets; ++set) add_square(convert<float>(x[i + set]), sums[set]);
  }
  for (; i < count; ++i) add_square(convert<float>(x[i]), sums[0]);
  uint64_t specials = 0;
  for (const Sums& set : sums) specials |= set[special];
  if (specials != 0) count_specials(x, count, bins);  // sums do not tell the two apart
  for (int64_t e = 0; e < special; ++e) {
    uint64_t sum = 0;
    for (const Sums& set : sums) sum += set[e];
    bins.at[e][0] += static_cast<int64_t>(sum & 0xffffffu);
    bins.at[e][1] += static_cast<int64_t>(sum >> 24);
  }
}

}  // namespace

void exact_sum_of_squares(Context& context, Tensor x, Tensor bins, Write write) {
  auto* total = bins.as<int64_t>();
  if (write == Write::overwrite) std::fill_n(total, 2 * exact_bins, int64_t{0});
  with_storage(x.dtype, [&]<class S>() {
    const S* data = x.as<S>();
    parallel_ranges(context.threads, x.numel(), run, 1, [&](int64_t begin, int64_t end) {
      Bins mine;
      for (int64_t first = begin; first < end; first += run)
        add_run(data + first, std::min(run, end - first), mine);
      for (int64_t i = 0; i < 2 * exact_bins; ++i) {
        const int64_t addend = mine.at[i / 2][i % 2];
        if (addend != 0) std::atomic_ref(total[i]).fetch_add(addend, std::memory_order_relaxed);
      }
    });
  });
}

void exact_total(Context&, Tensor bins, Tensor total) {
  const auto* at = bins.as<int64_t>();
  double sum = 0;
  for (int e = 0; e < static_cast<int>(special); ++e) sum += exact_bin_value(e, at[2 * e], at[2 * e + 1]);
  if (at[2 * special] != 0) sum = std::numeric_limits<double>::infinity();
  if (at[2 * special + 1] != 0) sum = std::numeric_limits<double>::quiet_NaN();
  *total.as<double>() = sum;
}

}  // namespace ptrain::cpu
