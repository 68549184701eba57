// The golden cases of tests/fixtures/golden: small models with inputs, logits, gradients and loss curves that
// an independent implementation computed in float64.
#pragma once

#include <cmath>
#include <filesystem>
#include <vector>

#include "src/io/json_fwd.h"
#include "src/io/safetensors.h"
#include "src/model/model.h"
#include "src/model/workload.h"
#include "tests/support/fixtures.h"

namespace ptrain {

/// Token rows with the targets, positions and documents that the layers read; one document a row.
struct GoldenRows {
  int64_t B = 0, T = 0;
  std::vector<int32_t> ids, targets, positions, document_start;
  int64_t supervised = 0;

  TokenRows tokens() const { return {ids, targets, positions, document_start}; }
};

/// lengths: of each row, the rest is padding; empty = all whole.
inline GoldenRows golden_rows(std::span<const int64_t> ids, std::span<const int64_t> labels, int64_t B,
                              int64_t T, std::span<const int64_t> lengths = {}) {
  GoldenRows rows{.B = B, .T = T};
  for (int64_t b = 0; b < B; ++b) {
    const int64_t length = lengths.empty() ? T : lengths[static_cast<size_t>(b)];
    for (int64_t t = 0; t < T; ++t) {
      const auto n = static_cast<size_t>(b * T + t);
      const bool is_real = t < length;
      const int64_t target = is_real && t + 1 < length ? labels[n + 1] : -100;
      rows.ids.push_back(static_cast<int32_t>(ids[n]));
      rows.targets.push_back(static_cast<int32_t>(target));
      rows.positions.push_back(static_cast<int32_t>(is_real ? t : 0));
      rows.document_start.push_back(static_cast<int32_t>(is_real ? 0 : t));
      rows.supervised += target != -100;
    }
  }
  return rows;
}

/// A plan for a model of one rank that sees one micro-batch of B rows.
inline Plan one_rank_plan(const ModelSpec& spec, int64_t B, int64_t T) {
  const Workload workload = workload_of(spec, SequenceParallel::off, 1);
  ParallelConfig parallel;
  parallel.micro = parallel.global = B;
  parallel.sequence_length = T;
  return make_plan(workload, parallel, 1);
}

/// Fills a model's weights from a safetensors file; its dtype may be f32 or f64.
inline void load_golden_weights(const SafetensorsFile& file, Model& model) {
  for (const PlacedWeight& weight : model.placed()) {
    Tensor to = model.parameters();
    to.data = static_cast<char*>(to.data) + weight.offset * size_bytes(to.dtype);
    to.shape = weight.box.extent;
    to.row_stride = weight.box.extent.columns();
    file.read_box(weight.spec.piece.name, weight.box, to);
  }
}

/// The largest difference over the largest entry of `want`.
inline double relative_to_largest(std::span<const float> got, std::span<const float> want) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference = std::max(difference, std::abs(double{got[i]} - double{want[i]}));
    largest = std::max(largest, std::abs(double{want[i]}));
  }
  return largest > 0 ? difference / largest : difference;
}

}  // namespace ptrain
