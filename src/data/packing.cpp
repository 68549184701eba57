#include "src/data/packing.h"

#include <algorithm>
#include <optional>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

/// How many of a document's tokens the rules keep.
int64_t kept_tokens(int64_t length, int64_t sequence_length, Overlong overlong) {
  if (length <= sequence_length) return length;
  if (overlong == Overlong::drop) return 0;
  return overlong == Overlong::truncate ? sequence_length : length;
}

/// The parts of an epoch, one after the other, from any place in it.
class PartWalk {
 public:
  PartWalk(const std::vector<uint32_t>& order, const LengthOf& length, const RowRules& rules, size_t position,
           int64_t begin)
      : order_(order),
        length_(length),
        sequence_length_(rules.sequence_length),
        overlong_(resolved(rules)),
        position_(position),
        begin_(begin) {}

  std::optional<Part> next() {
    for (; position_ < order_.size(); ++position_, begin_ = 0) {
      const int64_t sample = order_[position_];
      const int64_t kept = kept_tokens(length_(sample), sequence_length_, overlong_);
      if (begin_ >= kept) continue;
      const Part part{sample, begin_, std::min(kept - begin_, sequence_length_)};
      begin_ += part.count;
      return part;
    }
    return std::nullopt;
  }
  /// Where the part lies that next() gave last.
  size_t position() const { return position_; }

 private:
  const std::vector<uint32_t>& order_;
  const LengthOf& length_;
  int64_t sequence_length_;
  Overlong overlong_;
  size_t position_;  // in order_
  int64_t begin_;    // first token of that sample that was not given out
};

PackingCounts count(const LengthOf& length, const RowRules& rules, int64_t samples) {
  PackingCounts counts;
  counts.documents = samples;
  const Overlong overlong = resolved(rules);
  for (int64_t sample = 0; sample < samples; ++sample) {
    const int64_t tokens = length(sample);
    const int64_t kept = kept_tokens(tokens, rules.sequence_length, overlong);
    counts.tokens += kept;
    counts.tokens_left_out += tokens - kept;
    counts.empty += tokens == 0;
    if (tokens <= rules.sequence_length) continue;
    counts.dropped += overlong == Overlong::drop;
    counts.truncated += overlong == Overlong::truncate;
    counts.split += overlong == Overlong::split || overlong == Overlong::error;
  }
  return counts;
}

}  // namespace

Overlong resolved(const RowRules& rules) {
  if (rules.overlong != Overlong::automatic) return rules.overlong;
  return rules.packing == RowPacking::on ? Overlong::split : Overlong::truncate;
}

EpochPlan plan_epoch(const LengthOf& length, const RowRules& rules, std::vector<uint32_t> order) {
  check(rules.sequence_length > 0, "a row of {} tokens", rules.sequence_length);
  EpochPlan plan;
  plan.rules_ = rules;
  plan.order_ = std::move(order);
  plan.counts_ = count(length, rules, static_cast<int64_t>(plan.order_.size()));
  PartWalk walk(plan.order_, length, rules, 0, 0);
  int64_t room = 0;  // tokens that still fit into the open row
  while (const auto part = walk.next()) {
    if (rules.packing == RowPacking::off || part->count > room) {
      plan.row_start_.push_back({static_cast<uint32_t>(walk.position()), static_cast<uint32_t>(part->begin)});
      room = rules.sequence_length;
    }
    room -= part->count;
  }
  return plan;
}

std::vector<Part> EpochPlan::parts(int64_t row, const LengthOf& length) const {
  std::vector<Part> parts;
  if (row >= rows()) return parts;
  const Start start = row_start_[static_cast<size_t>(row)];
  PartWalk walk(order_, length, rules_, start.position, start.begin);
  int64_t room = rules_.sequence_length;
  for (auto part = walk.next(); part && part->count <= room; part = walk.next()) {
    parts.push_back(*part);
    room -= part->count;
    if (rules_.packing == RowPacking::off) break;
  }
  return parts;
}

std::string describe(const PackingCounts& counts, const RowRules& rules) {
  std::string text = fmt::format("{} documents, {} tokens", counts.documents, counts.tokens);
  const int64_t overlong = counts.split + counts.truncated + counts.dropped;
  if (overlong > 0) {
    text += fmt::format("; {} longer than {} tokens: {}", overlong, rules.sequence_length,
                        counts.split       ? "split"
                        : counts.truncated ? "truncated"
                                           : "dropped");
    if (counts.tokens_left_out > 0) text += fmt::format(" ({} tokens left out)", counts.tokens_left_out);
  }
  if (counts.empty > 0) text += fmt::format("; {} of no tokens: left out", counts.empty);
  return text;
}

}  // namespace ptrain
