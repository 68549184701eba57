#include "src/train/replica_check.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "kernels/base/rng.h"

namespace ptrain {
namespace {

constexpr int64_t words_of_record = sizeof(ReplicaRecord) / sizeof(int64_t);

int64_t key_of(const std::string& name, const Box& box, Range local) {
  std::string text = name;
  for (int dim = 0; dim < box.extent.dims(); ++dim)
    text += fmt::format(" {}+{}", box.begin[static_cast<size_t>(dim)], box.extent[dim]);
  text += fmt::format(" {}+{}", local.begin, local.count);
  return static_cast<int64_t>(hash_of(text));
}

/// What of a piece this rank holds.
Range held_of(const Trainer& trainer, const FlatPiece& piece) {
  const FlatLayout& layout = trainer.model().layout();
  const bool is_trained = piece.elements.begin < layout.trainable_elements;
  if (trainer.model().held_parameters() == Held::whole || !is_trained) return piece.elements;
  return intersection(piece.elements,
                      shard_of(layout, layout.bucket_of_unit(piece.unit), trainer.coordinate().data));
}

std::string ranks_text(std::span<const int> ranks, std::span<const std::string> hosts) {
  std::vector<std::string> texts;
  for (const int rank : ranks)
    texts.push_back(hosts.empty() ? std::to_string(rank)
                                  : fmt::format("{} (host {})", rank, hosts[static_cast<size_t>(rank)]));
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(texts, ", "));
}

}  // namespace

std::optional<ReplicaFault> compare_replicas(std::span<const std::vector<ReplicaRecord>> ranks) {
  struct Group {
    int64_t unit, piece;
    std::map<int64_t, std::vector<int>> holders;  // [sum]
  };
  std::map<int64_t, Group> groups;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    for (const ReplicaRecord& record : ranks[rank]) {
      Group& group = groups.try_emplace(record.key, Group{record.unit, record.piece, {}}).first->second;
      group.holders[record.sum].push_back(static_cast<int>(rank));
    }
  }
  const Group* first = nullptr;
  std::map<std::pair<int64_t, int64_t>, int> differing;
  for (const auto& [key, group] : groups) {
    if (group.holders.size() < 2) continue;
    const std::pair place{group.unit, group.piece};
    if (differing.empty() || place < differing.begin()->first) first = &group;
    differing[place] = 1;
  }
  if (first == nullptr) return std::nullopt;
  ReplicaFault fault{.unit = first->unit, .piece = first->piece, .tensors = std::ssize(differing)};
  size_t all = 0;
  const std::vector<int>* most = nullptr;
  for (const auto& [sum, holders] : first->holders) {
    all += holders.size();
    if (most == nullptr || holders.size() > most->size()) most = &holders;
  }
  if (2 * most->size() > all) fault.others = *most;
  for (const auto& [sum, holders] : first->holders) {
    if (fault.others.empty() || &holders != most)
      fault.suspects.insert(fault.suspects.end(), holders.begin(), holders.end());
  }
  std::ranges::sort(fault.suspects);
  fault.suspects.erase(std::unique(fault.suspects.begin(), fault.suspects.end()), fault.suspects.end());
  return fault;
}

ReplicaCheck::ReplicaCheck(Trainer& trainer, Communicator& world) : trainer_(trainer), world_(world) {
  const FlatLayout& layout = trainer.model().layout();
  std::vector<Range> held;
  for (size_t i = 0; i < layout.pieces.size(); ++i) {
    const FlatPiece& piece = layout.pieces[i];
    const Range range = held_of(trainer, piece);
    if (range.count == 0) continue;
    const PlacedWeight& weight = trainer.model().placed()[i];
    const Range local{range.begin - piece.elements.begin, range.count};
    mine_.push_back(
        {.key = key_of(weight.spec.piece.name, weight.box, local), .unit = piece.unit, .piece = piece.index});
    held.push_back(range);
  }
  int64_t own = std::ssize(mine_) * words_of_record;
  words_.resize(static_cast<size_t>(world.size()));
  world.all_gather(Tensor(&own, {1}, DType::i64), Tensor(words_.data(), {std::ssize(words_)}, DType::i64));

  // What is held once is left out from here on, by all ranks alike.
  const std::vector<std::vector<ReplicaRecord>> all = gathered();
  std::map<int64_t, std::vector<int>> holders;  // [key]: ranks, ascending
  for (size_t rank = 0; rank < all.size(); ++rank)
    for (const ReplicaRecord& record : all[rank]) holders[record.key].push_back(static_cast<int>(rank));
  const auto is_shared = [&](const ReplicaRecord& record) { return holders.at(record.key).size() > 1; };
  for (size_t rank = 0; rank < all.size(); ++rank)
    words_[rank] = std::ranges::count_if(all[rank], is_shared) * words_of_record;
  for (size_t i = 0; i < mine_.size(); ++i) {
    std::vector<int>& ranks = holders.at(mine_[i].key);
    if (ranks.size() == 1) continue;
    const uint64_t odd = static_cast<uint64_t>(mine_[i].key) | 1;
    const bool is_first = ranks.front() == world.rank();
    parts_.push_back({.values = trainer.model().owned_parameters().at(held[i]),
                      .factor = is_first ? odd * (ranks.size() - 1) : -odd});
    if (is_first) ranks.front() = -1;  // this rank may have both ends of a tied table
  }
  std::erase_if(mine_, [&](const ReplicaRecord& record) { return !is_shared(record); });
}

std::vector<std::vector<ReplicaRecord>> ReplicaCheck::gathered() const {
  std::vector<ReplicaRecord> own = mine_;  // what is sent is not const
  const int64_t words = std::accumulate(words_.begin(), words_.end(), int64_t{0});
  std::vector<ReplicaRecord> all(static_cast<size_t>(words / words_of_record));
  world_.all_gather_varied(Tensor(own.data(), {std::ssize(own) * words_of_record}, DType::i64),
                           Tensor(all.data(), {words}, DType::i64), words_);
  std::vector<std::vector<ReplicaRecord>> ranks;
  auto begin = all.begin();
  for (const int64_t count : words_) {
    ranks.emplace_back(begin, begin + count / words_of_record);
    begin += count / words_of_record;
  }
  return ranks;
}

uint64_t ReplicaCheck::imbalance() {
  trainer_.finish_exchange();
  return trainer_.checksum(parts_);
}

std::optional<ReplicaFault> ReplicaCheck::find() {
  for (size_t i = 0; i < mine_.size(); ++i) {
    const WeighedPart alone{.values = parts_[i].values};
    mine_[i].sum = static_cast<int64_t>(trainer_.checksum({&alone, 1}));
  }
  return compare_replicas(gathered());
}

std::string to_string(const ReplicaFault& fault, const Plan& plan, std::span<const std::string> hosts) {
  const Unit& unit = plan.workload.units[static_cast<size_t>(fault.unit)];
  const std::string& name = unit.pieces[static_cast<size_t>(fault.piece)].piece.name;
  const std::string more = fault.tensors == 1 ? ""
                                              : fmt::format(" and {} more tensor{}", fault.tensors - 1,
                                                            fault.tensors == 2 ? "" : "s");
  const std::string who = ranks_text(fault.suspects, hosts);
  if (fault.others.empty()) return fmt::format("{}{}: {} hold different values", name, more, who);
  return fmt::format("{}{}: {} hold{} other values than {}", name, more, who,
                     fault.suspects.size() == 1 ? "s" : "", ranks_text(fault.others, {}));
}

}  // namespace ptrain
