#include "src/data/batches.h"

#include <algorithm>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr size_t plans_kept = 2;  // this epoch's, and the next one's while rows are fetched ahead

void check_geometry(const BatchGeometry& g) {
  check(g.micro > 0 && g.data > 0 && g.global > 0, ExitCode::usage,
        "batch.micro = {}, batch.global = {} and {} data ranks: each must be at least 1", g.micro, g.global,
        g.data);
  const int64_t unit = g.micro * g.data;
  const int64_t below = g.global / unit * unit;
  check(below == g.global, ExitCode::usage,
        "batch.global = {} is not a multiple of batch.micro * data ranks = {} * {} = {}; the nearest: {}",
        g.global, g.micro, g.data, unit,
        below == 0 ? fmt::format("{}", unit) : fmt::format("{} or {}", below, below + unit));
}

void check_overlong(const DocumentSource& source, const RowRules& rules) {
  if (rules.overlong != Overlong::error) return;
  int64_t first = -1;
  int64_t found = 0;
  for (int64_t sample = 0; sample < source.size(); ++sample) {
    if (source.length(sample) <= rules.sequence_length) continue;
    if (found++ == 0) first = sample;
  }
  if (found == 0) return;
  fail(ExitCode::input,
       "{}: {} tokens, longer than data.sequence_length = {} ({} such documents of {}), and data.overlong is "
       "error: choose split, truncate or drop, or a longer sequence_length",
       source.name(first), source.length(first), rules.sequence_length, found, source.size());
}

}  // namespace

Batches::Batches(const DocumentSource& source, RowRules rules, BatchGeometry geometry, OrderRules order)
    : source_(&source), rules_(rules), geometry_(geometry), order_(order), length_([&source](int64_t sample) {
        return source.length(sample);
      }) {
  check(rules_.sequence_length > 0, ExitCode::usage, "data.sequence_length = {}: must be at least 1",
        rules_.sequence_length);
  check_geometry(geometry_);
  check_overlong(source, rules_);
  const auto first = plan(0);
  check(first->rows() > 0, ExitCode::input, "the data holds no rows to train on: {}",
        describe(first->counts(), rules_));
}

std::shared_ptr<const EpochPlan> Batches::plan(int64_t epoch) const {
  if (order_.shuffle == Shuffle::off) epoch = 0;  // all epochs are the same
  const std::lock_guard lock(mutex_);
  const auto known =
      std::find_if(plans_.begin(), plans_.end(), [&](const auto& p) { return p.first == epoch; });
  if (known != plans_.end()) return known->second;
  auto made = std::make_shared<const EpochPlan>(
      plan_epoch(length_, rules_, sample_order(source_->size(), order_.seed, epoch, order_.shuffle)));
  if (plans_.size() >= plans_kept) plans_.erase(plans_.begin());
  plans_.emplace_back(epoch, made);
  return made;
}

int64_t Batches::steps_per_epoch(int64_t epoch) const {
  // Without packing the order does not change how many rows there are.
  return plan(rules_.packing == RowPacking::off ? 0 : epoch)->steps(geometry_.global);
}

/// Adds one more epoch to epoch_begin_, unless somebody else did since it knew `known` epochs.
void Batches::learn_epoch(int64_t known) const {
  const int64_t more = steps_per_epoch(known);
  const std::lock_guard lock(mutex_);
  if (static_cast<int64_t>(epoch_begin_.size()) == known + 1) {
    epoch_begin_.push_back(epoch_begin_.back() + more);
  }
}

int64_t Batches::steps(int64_t epochs) const {
  for (;;) {
    int64_t known = 0;
    {
      const std::lock_guard lock(mutex_);
      known = static_cast<int64_t>(epoch_begin_.size()) - 1;
      if (known >= epochs) return epoch_begin_[static_cast<size_t>(epochs)];
    }
    learn_epoch(known);
  }
}

Batches::Place Batches::place(int64_t step) const {
  check(step >= 1, "step {}: steps count from 1", step);
  for (;;) {
    int64_t known = 0;
    {
      const std::lock_guard lock(mutex_);
      known = static_cast<int64_t>(epoch_begin_.size()) - 1;
      if (epoch_begin_.back() >= step) {
        const auto after = std::lower_bound(epoch_begin_.begin(), epoch_begin_.end(), step);
        return {after - epoch_begin_.begin() - 1, step - 1 - *(after - 1)};
      }
    }
    learn_epoch(known);
  }
}

std::vector<Part> Batches::parts(int64_t step, int64_t row) const {
  const Place at = place(step);
  return plan(at.epoch)->parts(at.step * geometry_.global + row, length_);
}

void Batches::fill_row(const std::vector<Part>& parts, int64_t row, MicroBatch& out) const {
  const int64_t first = row * out.T;
  int64_t t = 0;  // tokens of the row that are filled
  for (const Part& part : parts) {
    const auto count = static_cast<size_t>(part.count);
    const std::span ids(out.ids.data() + first + t, count);
    const std::span targets(out.targets.data() + first + t, count);
    source_->read(part.sample, part.begin, ids, targets);
    // What read() gave are labels; a token predicts the next one's, and the last of a part predicts nothing.
    std::copy(targets.begin() + 1, targets.end(), targets.begin());
    targets.back() = not_supervised;
    out.supervised +=
        std::count_if(targets.begin(), targets.end(), [](int32_t x) { return x != not_supervised; });
    for (int64_t i = 0; i < part.count; ++i) {
      out.positions[static_cast<size_t>(first + t + i)] = static_cast<int32_t>(i);
      out.document_start[static_cast<size_t>(first + t + i)] = static_cast<int32_t>(t);
    }
    t += part.count;
  }
  out.tokens += t;
  for (; t < out.T; ++t) out.document_start[static_cast<size_t>(first + t)] = static_cast<int32_t>(t);
}

MicroBatch Batches::micro_batch(int64_t step, int64_t data_coordinate, int64_t micro) const {
  check(data_coordinate >= 0 && data_coordinate < geometry_.data && micro >= 0 && micro < geometry_.micros(),
        "micro-batch {} of data rank {}: there are {} of {}", micro, data_coordinate, geometry_.micros(),
        geometry_.data);
  MicroBatch out;
  out.B = geometry_.micro;
  out.T = rules_.sequence_length;
  const auto n = static_cast<size_t>(out.B * out.T);
  out.ids.assign(n, 0);
  out.targets.assign(n, not_supervised);
  out.positions.assign(n, 0);
  out.document_start.resize(n);
  const Place at = place(step);
  const auto epoch = plan(at.epoch);
  const int64_t first =
      at.step * geometry_.global + (data_coordinate * geometry_.micros() + micro) * geometry_.micro;
  for (int64_t row = 0; row < out.B; ++row) fill_row(epoch->parts(first + row, length_), row, out);
  return out;
}

int64_t Batches::supervised(int64_t step) const {
  const Place at = place(step);
  const auto epoch = plan(at.epoch);
  std::vector<int32_t> ids(static_cast<size_t>(rules_.sequence_length));
  std::vector<int32_t> labels(ids.size());
  int64_t sum = 0;
  for (int64_t row = 0; row < geometry_.global; ++row) {
    for (const Part& part : epoch->parts(at.step * geometry_.global + row, length_)) {
      const auto count = static_cast<size_t>(part.count);
      source_->read(part.sample, part.begin, std::span(ids).first(count), std::span(labels).first(count));
      sum += std::count_if(labels.begin() + 1, labels.begin() + part.count,
                           [](int32_t x) { return x != not_supervised; });
    }
  }
  return sum;
}

PackingCounts Batches::counts() const {
  return plan(0)->counts();
}

}  // namespace ptrain
