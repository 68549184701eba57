// Cases and oracle of the attention tests: the (T, T) matrix in f64, with no tiles and no shortcuts.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "kernels/ops/attention.h"
#include "tests/kernels/guarded.h"

namespace ptrain {

struct AttentionCase {
  std::string name;
  AttentionDims dims;
  std::vector<int32_t>
      document_lengths;  // of every row, in turn; the last fills up. Empty: one document a row
};

inline std::vector<AttentionCase> attention_cases() {
  const auto dims = [](int64_t B, int64_t T, int64_t H, int64_t K, int64_t D, int64_t group,
                       int64_t first_head = 0, int64_t window = 0) {
    return AttentionDims{B, T, H, K, D, group, first_head, 1 / std::sqrt(static_cast<double>(D)), window};
  };
  return {{"one token", dims(1, 1, 1, 1, 4, 1), {}},
          {"odd sizes", dims(2, 7, 3, 3, 5, 1), {}},
          {"a group of three", dims(2, 19, 6, 2, 8, 3), {}},
          {"first head inside a group", dims(1, 21, 4, 2, 8, 3, 2), {}},
          {"a group cut on both sides", dims(1, 9, 2, 1, 6, 4, 1), {}},
          {"larger than a tile", dims(1, 150, 2, 1, 64, 2), {}},
          {"a tile to the element", dims(1, 128, 1, 1, 32, 1), {}},
          {"a tile and one", dims(2, 65, 2, 2, 16, 1), {}},
          {"head size beyond two vectors", dims(1, 70, 1, 1, 80, 1), {}},
          {"largest head size", dims(1, 33, 1, 1, 256, 1), {}},
          {"documents", dims(2, 40, 2, 1, 8, 2), {3, 1, 1, 17, 2, 30}},
          {"documents of one token", dims(1, 33, 1, 1, 8, 1), std::vector<int32_t>(33, 1)},
          {"documents over tiles", dims(2, 200, 3, 3, 16, 1), {90, 1, 70, 25}},
          {"window", dims(1, 90, 2, 1, 8, 2, 0, 13), {}},
          {"window of one", dims(1, 20, 1, 1, 8, 1, 0, 1), {}},
          {"window longer than the row", dims(1, 20, 1, 1, 8, 1, 0, 500), {}},
          {"keys in parts", dims(1, 1100, 1, 1, 8, 1), {}},
          {"keys in parts with documents", dims(1, 1050, 3, 3, 4, 1, 0, 600), {300, 1, 400}},
          {"window and documents", dims(2, 150, 2, 2, 24, 1, 0, 40), {100, 7, 60}}};
}

/// (N) time index of the first token of each token's document.
inline std::vector<int32_t> document_starts(const AttentionCase& c) {
  std::vector<int32_t> starts;
  for (int64_t b = 0; b < c.dims.B; ++b) {
    int32_t start = 0;
    size_t next = static_cast<size_t>(b);  // rows differ
    for (int32_t t = 0; t < c.dims.T; ++t) {
      if (!c.document_lengths.empty() && next < c.document_lengths.size() &&
          t - start == c.document_lengths[next]) {
        start = t;
        ++next;
      }
      starts.push_back(start);
    }
  }
  return starts;
}

struct AttentionOracle {
  std::vector<double> out, lse, delta, dq, dk, dv;
};

template <class T>
AttentionOracle attention_oracle(const AttentionCase& c, const std::vector<int32_t>& starts,
                                 const Guarded<T>& q, const Guarded<T>& k, const Guarded<T>& v,
                                 const Guarded<T>& dout) {
  const AttentionDims& d = c.dims;
  const size_t query_size = static_cast<size_t>(d.B * d.T * d.H * d.D),
               key_size = static_cast<size_t>(d.B * d.T * d.K * d.D);
  const size_t row_count = static_cast<size_t>(d.B * d.H * d.T);
  AttentionOracle o{std::vector<double>(query_size), std::vector<double>(row_count),
                    std::vector<double>(row_count),  std::vector<double>(query_size),
                    std::vector<double>(key_size),   std::vector<double>(key_size)};
  for (int64_t b = 0; b < d.B; ++b) {
    for (int64_t h = 0; h < d.H; ++h) {
      const int64_t kv = (d.first_head + h) / d.group;
      for (int64_t t = 0; t < d.T; ++t) {
        const int64_t n = b * d.T + t;
        const auto sees = [&](int64_t s) {
          return s <= t && s >= starts[static_cast<size_t>(n)] && (d.window == 0 || s > t - d.window);
        };
        std::vector<double> p(static_cast<size_t>(d.T)), dp(static_cast<size_t>(d.T));
        double sum = 0, delta = 0, largest = -std::numeric_limits<double>::infinity();
        for (int64_t s = 0; s < d.T; ++s) {
          if (!sees(s)) continue;
          double score = 0;
          for (int64_t i = 0; i < d.D; ++i) {
            score += q(n, h * d.D + i) * k(b * d.T + s, kv * d.D + i);
            dp[static_cast<size_t>(s)] += dout(n, h * d.D + i) * v(b * d.T + s, kv * d.D + i);
          }
          p[static_cast<size_t>(s)] = score * d.scale;
          largest = std::max(largest, score * d.scale);
        }
        for (int64_t s = 0; s < d.T; ++s) {
          if (sees(s)) sum += p[static_cast<size_t>(s)] = std::exp(p[static_cast<size_t>(s)] - largest);
        }
        const size_t position = static_cast<size_t>((b * d.H + h) * d.T + t);
        o.lse[position] = largest + std::log(sum);
        for (int64_t s = 0; s < d.T; ++s) {
          p[static_cast<size_t>(s)] /= sum;
          delta += p[static_cast<size_t>(s)] * dp[static_cast<size_t>(s)];
        }
        o.delta[position] = delta;
        for (int64_t s = 0; s < d.T; ++s) {
          if (!sees(s)) continue;
          const double probability = p[static_cast<size_t>(s)];
          const double dscore = probability * (dp[static_cast<size_t>(s)] - delta) * d.scale;
          for (int64_t i = 0; i < d.D; ++i) {
            const size_t at_query = static_cast<size_t>(n * d.H * d.D + h * d.D + i);
            const size_t at_key = static_cast<size_t>((b * d.T + s) * d.K * d.D + kv * d.D + i);
            o.out[at_query] += probability * v(b * d.T + s, kv * d.D + i);
            o.dq[at_query] += dscore * k(b * d.T + s, kv * d.D + i);
            o.dk[at_key] += dscore * q(n, h * d.D + i);
            o.dv[at_key] += probability * dout(n, h * d.D + i);
          }
        }
      }
    }
  }
  return o;
}

}  // namespace ptrain
