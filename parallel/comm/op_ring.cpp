#include "parallel/comm/op_ring.h"

#include <algorithm>
#include <chrono>

#include "kernels/base/progress.h"

namespace ptrain {
namespace {

template <size_t N>
void copy_text(char (&to)[N], std::string_view from) {
  const size_t length = std::min(from.size(), N - 1);
  std::memcpy(to, from.data(), length);
  std::memset(to + length, 0, N - length);
}

double seconds(int64_t ns) {
  return 1e-9 * static_cast<double>(ns);
}

}  // namespace

class OpRing::Writing {
 public:
  explicit Writing(OpRing& ring) : ring_(ring), version_(ring.version_.load(std::memory_order_relaxed)) {
    ring_.version_.store(version_ + 1, std::memory_order_relaxed);
  }
  ~Writing() { ring_.version_.store(version_ + 2, std::memory_order_release); }

 private:
  OpRing& ring_;
  uint64_t version_;
};

OpRing::OpRing() {
  for (auto& layer : layers_) layer.store(no_layer, std::memory_order_relaxed);
}

int64_t OpRing::now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

OpRing::Record OpRing::record_of(const Op& op, int64_t end_ns) {
  const int64_t now = now_ns();
  Record record{.name = {},
                .wait = op.wait,
                .group = op.group,
                .layer = op.layer,
                .chunk = op.chunk,
                .micro = op.micro,
                .bucket = op.bucket,
                .peer = op.peer,
                .sequence = op.sequence,
                .begin_ns = now,
                .end_ns = end_ns < 0 ? -1 : now};
  for (size_t i = 0; i + 1 < sizeof record.name && op.name[i] != 0; ++i) record.name[i] = op.name[i];
  return record;
}

void OpRing::begin(const Op& op) {
  const Writing writing(*this);
  const int32_t depth = depth_.load(std::memory_order_relaxed);
  if (depth < max_depth) {
    const auto at = static_cast<size_t>(depth);
    own_[at] = record_of(op, -1);
    open_[at].store(own_[at]);
    layers_[at].store(op.layer, std::memory_order_relaxed);
  }
  depth_.store(depth + 1, std::memory_order_release);
}

void OpRing::end() {
  const Writing writing(*this);
  const int32_t depth = depth_.load(std::memory_order_relaxed) - 1;
  depth_.store(depth, std::memory_order_release);
  if (depth >= max_depth) return;  // was too deep to be kept
  const auto at = static_cast<size_t>(depth);
  own_[at].end_ns = now_ns();
  own_[at].layer = layers_[at].load(std::memory_order_relaxed);
  const uint64_t ended = ended_.load(std::memory_order_relaxed);
  ring_[ended % size].store(own_[at]);
  ended_.store(ended + 1, std::memory_order_release);
}

void OpRing::mark(const Op& op) {
  const Writing writing(*this);
  const uint64_t ended = ended_.load(std::memory_order_relaxed);
  ring_[ended % size].store(record_of(op, 0));
  ended_.store(ended + 1, std::memory_order_release);
}

void OpRing::at_layer(int layer) {
  const int32_t depth = depth_.load(std::memory_order_relaxed);
  if (depth < 1 || depth > max_depth) return;
  const Writing writing(*this);
  layers_[static_cast<size_t>(depth - 1)].store(layer, std::memory_order_release);
}

void OpRing::set_phase(std::string_view phase, bool is_long) {
  const Writing writing(*this);
  Phase text;
  copy_text(text.name, phase);
  phase_.store(text);
  is_long_.store(is_long, std::memory_order_release);
}

int OpRing::add_group(uint32_t id, std::string_view name, int ranks, int64_t entered) {
  for (int group = 0; group < max_groups; ++group) {
    const auto at = static_cast<size_t>(group);
    if (groups_[at].load().ranks != 0) continue;
    const Writing writing(*this);
    Group added{.name = {}, .id = id, .ranks = ranks};
    copy_text(added.name, name);
    groups_[at].store(added);
    entered_[at].store(entered, std::memory_order_relaxed);
    return group;
  }
  return -1;
}

void OpRing::name_group(int group, std::string_view name) {
  if (group < 0) return;
  const Writing writing(*this);
  Group named = groups_[static_cast<size_t>(group)].load();
  copy_text(named.name, name);
  groups_[static_cast<size_t>(group)].store(named);
}

void OpRing::remove_group(int group) {
  if (group < 0) return;
  const Writing writing(*this);
  groups_[static_cast<size_t>(group)].store(Group{});
}

uint64_t OpRing::progress() const {
  const uint64_t noted = version_.load(std::memory_order_relaxed) + moves_.load(std::memory_order_relaxed);
  return is_long_.load(std::memory_order_relaxed) ? noted + progress::ticks() : noted;
}

OpSnapshot OpRing::snapshot() const {
  // A rank that is stuck does not write: the first try is whole. Of one that works a mixture will do.
  for (int tries = 0;; ++tries) {
    const uint64_t before = version_.load(std::memory_order_acquire);
    const int64_t now = now_ns();
    OpSnapshot shown;
    const Phase phase = phase_.load();
    copy_text(shown.phase, {phase.name, strnlen(phase.name, sizeof phase.name)});
    shown.is_long = is_long_.load(std::memory_order_acquire);
    shown.step = step();
    std::array<Group, max_groups> groups;
    for (size_t i = 0; i < groups.size(); ++i) {
      groups[i] = groups_[i].load();
      if (groups[i].ranks == 0) continue;
      GroupLine line{.id = groups[i].id, .size = groups[i].ranks, .name = {}, .entered = entered_[i].load()};
      copy_text(line.name, {groups[i].name, strnlen(groups[i].name, sizeof groups[i].name)});
      shown.groups.push_back(line);
    }
    const auto line_of = [&](const Record& record, int32_t layer) {
      const bool has_group = record.group >= 0 && record.group < max_groups;
      OpLine line{.name = {},
                  .wait = record.wait,
                  .group_id_is_known = has_group ? 1 : 0,
                  .group_id = has_group ? groups[static_cast<size_t>(record.group)].id : 0,
                  .layer = layer,
                  .chunk = record.chunk,
                  .micro = record.micro,
                  .bucket = record.bucket,
                  .peer = record.peer,
                  .sequence = record.sequence,
                  .age_s = seconds(now - record.begin_ns),
                  .took_s = record.end_ns < 0 ? -1 : seconds(record.end_ns - record.begin_ns)};
      copy_text(line.name, {record.name, strnlen(record.name, sizeof record.name)});
      return line;
    };
    const auto depth = std::clamp(depth_.load(std::memory_order_acquire), 0, max_depth);
    for (int32_t i = 0; i < depth; ++i) {
      const auto at = static_cast<size_t>(i);
      shown.open.push_back(line_of(open_[at].load(), layers_[at].load(std::memory_order_acquire)));
    }
    const uint64_t ended = ended_.load(std::memory_order_acquire);
    for (uint64_t i = ended - std::min<uint64_t>(ended, size); i < ended; ++i) {
      const Record record = ring_[i % size].load();
      shown.recent.push_back(line_of(record, record.layer));
    }
    const bool is_whole = before % 2 == 0 && version_.load(std::memory_order_relaxed) == before;
    if (is_whole || tries == 10) return shown;
  }
}

}  // namespace ptrain
