// A trainer that looks at what the model says and changes nothing; declared in trainer.h.
#include <limits>

#include "kernels/base/stream.h"
#include "kernels/ops/elementwise.h"
#include "src/model/host_flat.h"
#include "src/train/trainer.h"

namespace ptrain {

void Trainer::show_logits(Stage& stage, int slot, int micro) {
  const int64_t V = spec_.V;
  const int tensor = plan_.mesh.tensor;
  Context host = host_context(context_);
  OwnedTensor all({model_.dims().N, V}, DType::f32);
  stage.logits(slot, [&](int64_t first_row, Tensor computed) {
    const int64_t rows = computed.rows();
    if (tensor == 1) return to_host(context_, computed, all.view.row_range(first_row, rows));
    const OwnedTensor own(computed.shape, DType::f32);
    const Tensor chunk = own.view;
    to_host(context_, computed, chunk);
    std::vector<int64_t> counts;
    for (int part = 0; part < tensor; ++part) counts.push_back(rows * part_of(V, part, tensor).count);
    OwnedTensor parts({rows * V}, DType::f32);
    comms_.tensor->all_gather_varied(chunk, parts.view, counts);
    int64_t begin = 0;
    for (int part = 0; part < tensor; ++part) {
      const Range ids = part_of(V, part, tensor);
      const Tensor from(parts.view.as<float>() + begin, {rows, ids.count}, DType::f32);
      copy(host, from, all.view.row_range(first_row, rows).column_range(ids.begin, ids.count));
      begin += counts[static_cast<size_t>(part)];
    }
  });
  if (coordinate().tensor == 0) (*shows_logits_)(evaluated_step_, micro, all.view);
}

Evaluation Trainer::evaluate(const Batches& batches, int64_t steps, const LogitsOf& each) {
  std::array<int64_t, 2> counts{};
  shows_logits_ = each ? &each : nullptr;
  watch(nullptr);
  model_.clear();
  for (int64_t step = 1; step <= steps; ++step) {
    // A GPU may still copy the rows of the step before; of a training step it has done so.
    if (context_.stream != nullptr) context_.stream->synchronize();
    load_rows(batches, step);
    evaluated_step_ = step;
    for (const MicroBatch& rows : rows_) {
      counts[0] += rows.supervised;
      counts[1] += rows.tokens;
    }
    play(evaluate_, Pass::evaluate, 0);
  }
  shows_logits_ = nullptr;
  watch(tracer_);
  sum_over_data(counts);
  sum_up(Pass::evaluate);
  const double loss = read_sums().loss;
  return {.loss = counts[0] > 0 ? loss / static_cast<double>(counts[0])
                                : std::numeric_limits<double>::quiet_NaN(),
          .supervised_tokens = counts[0],
          .tokens = counts[1]};
}

}  // namespace ptrain
