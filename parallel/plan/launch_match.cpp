// Whether the launches of several ranks fit together; declared in launch_order.h. First each communicator's
// operations are compared, then all of them are run on paper.
#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "kernels/base/error.h"
#include "parallel/plan/at.h"
#include "parallel/plan/launch_order.h"

namespace ptrain {
namespace {

bool is_message(const Launch& launch) {
  return launch.kind == LaunchKind::send || launch.kind == LaunchKind::receive;
}

constexpr size_t num_wires = 6;

/// Names a communicator's group, or one direction of a lane: both ranks of a message name the same.
struct Channel {
  LaunchWire wire = LaunchWire::world;
  int first = 0;    // the group's first rank, or the sender
  int second = -1;  // the receiver

  auto operator<=>(const Channel&) const = default;
};

Channel channel_of(const Mesh& mesh, int rank, const Launch& launch) {
  if (is_message(launch)) {
    Coordinate other = mesh.coordinate_of(rank);
    other.pipeline = launch.peer;
    const int peer = mesh.rank_of(other);
    return launch.kind == LaunchKind::send ? Channel{launch.wire, rank, peer}
                                           : Channel{launch.wire, peer, rank};
  }
  Coordinate first = mesh.coordinate_of(rank);
  if (launch.wire == LaunchWire::tensor) first.tensor = 0;
  if (launch.wire == LaunchWire::data) first.data = 0;
  return {launch.wire, launch.wire == LaunchWire::world ? 0 : mesh.rank_of(first), -1};
}

std::string to_string(const Channel& channel) {
  if (channel.second >= 0)
    return fmt::format("{} from rank {} to {}", name_of(channel.wire), channel.first, channel.second);
  if (channel.wire == LaunchWire::world) return "world";
  return fmt::format("{} of rank {}", name_of(channel.wire), channel.first);
}

/// Whether two ranks' operations are one and for the same thing; of a message, one side sends and the other
/// receives. Data is never looked at by NCCL, so a message of another micro-batch, or for another of a
/// rank's stages, would come in silence.
bool fits(const Launch& a, const Launch& b) {
  const bool is_pair = is_message(a) ? is_message(b) && a.kind != b.kind : a.kind == b.kind;
  return is_pair && a.bytes == b.bytes && a.is_started == b.is_started && a.micro == b.micro &&
         a.unit == b.unit && a.bucket == b.bucket && a.stage == b.stage;
}

/// Launches of one rank on one channel, in order.
using Sequences = std::map<Channel, std::vector<std::pair<int, std::vector<const Launch*>>>>;

Sequences sequences_of(const Mesh& mesh, const std::vector<RankLaunches>& ranks) {
  Sequences sequences;
  for (const RankLaunches& rank : ranks) {
    // A rank has few channels: the last one of each wire is nearly always the next one too.
    std::map<Channel, std::vector<const Launch*>> own;
    std::map<std::tuple<LaunchWire, LaunchKind, int>, std::vector<const Launch*>*> known;
    for (const Launch& launch : rank.launches) {
      if (launch.kind == LaunchKind::wait) continue;
      const LaunchKind direction = is_message(launch) ? launch.kind : LaunchKind::wait;
      auto*& sequence = known[{launch.wire, direction, launch.peer}];
      if (sequence == nullptr) sequence = &own[channel_of(mesh, rank.rank, launch)];
      sequence->push_back(&launch);
    }
    for (auto& [channel, sequence] : own) sequences[channel].push_back({rank.rank, std::move(sequence)});
  }
  return sequences;
}

/// The ranks of the sample that a channel has.
std::vector<int> members_of(const Mesh& mesh, const std::vector<RankLaunches>& ranks,
                            const Channel& channel) {
  std::vector<int> members;
  for (const RankLaunches& rank : ranks) {
    if (channel.second >= 0) {
      if (rank.rank == channel.first || rank.rank == channel.second) members.push_back(rank.rank);
    } else if (channel_of(mesh, rank.rank, {.kind = LaunchKind::all_reduce, .wire = channel.wire}) ==
               channel) {
      members.push_back(rank.rank);
    }
  }
  return members;
}

std::string mismatch(const Mesh& mesh, const std::vector<RankLaunches>& ranks) {
  static const std::vector<const Launch*> nothing;
  for (const auto& [channel, sequences] : sequences_of(mesh, ranks)) {
    const auto& [first_rank, first] = sequences.front();
    for (int rank : members_of(mesh, ranks, channel)) {
      if (rank == first_rank) continue;
      const auto found = std::ranges::find(sequences, rank, [](const auto& entry) { return entry.first; });
      const std::vector<const Launch*>& other = found == sequences.end() ? nothing : found->second;
      for (size_t i = 0; i < std::max(first.size(), other.size()); ++i) {
        if (i < first.size() && i < other.size() && fits(*first[i], *other[i])) continue;
        const auto text = [&](const std::vector<const Launch*>& of) {
          return i < of.size() ? "launches " + to_string(*of[i]) : "launches nothing more";
        };
        return fmt::format("{}, operation {}: rank {} {}, rank {} {}", to_string(channel), i + 1, first_rank,
                           text(first), rank, text(other));
      }
    }
  }
  return {};
}

/// Runs all launches on paper; an operation is done when every member of its channel has reached it.
class Paper {
 public:
  Paper(const Mesh& mesh, const std::vector<RankLaunches>& ranks) : mesh_(mesh) {
    for (const RankLaunches& rank : ranks) states_.push_back(State{.rank = &rank});
    for (size_t i = 0; i < states_.size(); ++i) {
      states_[i].is_done.resize(states_[i].rank->launches.size());
      index_of_[states_[i].rank->rank] = i;
    }
    ranks_ = &ranks;
  }

  /// Empty where every rank comes to its end.
  std::string fault() {
    for (size_t i = 0; i < states_.size(); ++i) ready_.push_back(i);
    while (!ready_.empty()) {
      State& state = states_[ready_.front()];
      ready_.pop_front();
      state.is_ready = false;
      advance(state);
    }
    for (const State& state : states_) {
      if (blocker_of(state)) return explain(state);
    }
    return {};
  }

 private:
  /// Operations of one channel that a rank has launched and that are not done, in order.
  struct Queue {
    int channel = 0;
    std::deque<int> launches;
    int64_t reached = 0;  // operations that came to the front so far
  };
  struct State {
    const RankLaunches* rank = nullptr;
    size_t next = 0;           // the next launch of compute
    bool has_reached = false;  // a blocking collective at `next` waits for its peers
    bool is_ready = true;
    std::vector<char> is_done;
    std::map<std::tuple<LaunchWire, LaunchKind, int>, Queue> lanes;  // messages
    std::deque<int> started;                                         // collectives beside compute
    std::array<int64_t, num_wires> collectives{};                    // launched, by wire
    std::array<int, num_wires> channels{-1, -1, -1, -1, -1, -1};
  };
  struct Meeting {
    std::vector<std::pair<size_t, int>> reached;  // state, launch
  };

  int channel_number(const Channel& channel) {
    const auto [place, is_new] = channel_numbers_.try_emplace(channel, static_cast<int>(members_.size()));
    if (is_new) members_.push_back(members_of(mesh_, *ranks_, channel));
    return place->second;
  }
  int collective_channel(State& state, const Launch& launch) {
    int& number = state.channels[static_cast<size_t>(launch.wire)];
    if (number < 0) number = channel_number(channel_of(mesh_, state.rank->rank, launch));
    return number;
  }
  static uint64_t key_of(int channel, int64_t number) {
    return static_cast<uint64_t>(channel) << 40 | static_cast<uint64_t>(number);
  }

  /// Goes on with compute until it must wait.
  void advance(State& state) {
    const std::vector<Launch>& launches = state.rank->launches;
    while (state.next < launches.size()) {
      const auto index = static_cast<int>(state.next);
      const Launch& launch = launches[state.next];
      if (launch.kind == LaunchKind::wait) {
        if (!state.is_done[at(launch.awaited)]) return;
      } else if (is_message(launch)) {
        Queue& lane = state.lanes[{launch.wire, launch.kind, launch.peer}];
        if (lane.launches.empty() && lane.reached == 0)
          lane.channel = channel_number(channel_of(mesh_, state.rank->rank, launch));
        lane.launches.push_back(index);
        if (lane.launches.size() == 1)
          reach(state, index, key_of(lane.channel, lane.reached++), lane.channel);
      } else if (launch.is_started) {
        state.started.push_back(index);
        if (state.started.size() == 1) reach_collective(state, index);
      } else {
        // A collective before it, beside compute, may have left no room: this one comes after it.
        if (!state.started.empty()) return;
        if (!state.has_reached) {
          state.has_reached = true;
          reach_collective(state, index);
        }
        if (!state.is_done[state.next]) return;
        state.has_reached = false;
      }
      ++state.next;
    }
  }

  // A rank's collectives run one at a time in the order of launching, so they are numbered as they begin.
  void reach_collective(State& state, int index) {
    const Launch& launch = state.rank->launches[at(index)];
    const int channel = collective_channel(state, launch);
    reach(state, index, key_of(channel, state.collectives[static_cast<size_t>(launch.wire)]++), channel);
  }

  void reach(State& state, int index, uint64_t key, int channel) {
    const auto number = static_cast<size_t>(&state - states_.data());
    Meeting& meeting = meetings_[key];
    meeting.reached.push_back({number, index});
    if (meeting.reached.size() < members_[at(channel)].size()) return;
    const auto reached = std::move(meeting.reached);
    meetings_.erase(key);
    for (const auto& [who, launch] : reached) done_.push_back({who, launch});
    if (is_finishing_) return;  // the outer call takes these too
    is_finishing_ = true;
    while (!done_.empty()) {
      const auto [who, launch] = done_.front();
      done_.pop_front();
      finish(states_[who], launch);
    }
    is_finishing_ = false;
  }

  void finish(State& state, int index) {
    const Launch& launch = state.rank->launches[at(index)];
    state.is_done[at(index)] = 1;
    if (is_message(launch)) {
      Queue& lane = state.lanes[{launch.wire, launch.kind, launch.peer}];
      lane.launches.pop_front();
      if (!lane.launches.empty())
        reach(state, lane.launches.front(), key_of(lane.channel, lane.reached++), lane.channel);
    } else if (launch.is_started) {
      state.started.pop_front();
      if (!state.started.empty()) reach_collective(state, state.started.front());
    }
    if (!state.is_ready) {
      state.is_ready = true;
      ready_.push_back(static_cast<size_t>(&state - states_.data()));
    }
  }

  /// The launch that keeps a rank from going on, since a peer has not come; one that lies ahead where the
  /// rank waits for itself.
  std::optional<int> blocker_of(const State& state) const {
    if (state.next < state.rank->launches.size()) {
      const Launch& launch = state.rank->launches[state.next];
      if (launch.kind != LaunchKind::wait && !launch.is_started)
        return state.started.empty() ? static_cast<int>(state.next) : state.started.front();
      if (at(launch.awaited) > state.next) return launch.awaited;
      const Launch& awaited = state.rank->launches[at(launch.awaited)];
      if (!is_message(awaited)) return state.started.front();
      return state.lanes.at({awaited.wire, awaited.kind, awaited.peer}).launches.front();
    }
    if (!state.started.empty()) return state.started.front();
    for (const auto& [name, lane] : state.lanes) {
      if (!lane.launches.empty()) return lane.launches.front();
    }
    return std::nullopt;
  }

  /// A member of the channel that has not reached what `state` waits for.
  const State* missing_peer(const State& state, int index) const {
    const Channel channel = channel_of(mesh_, state.rank->rank, state.rank->launches[at(index)]);
    std::vector<int> here;
    for (const auto& [key, meeting] : meetings_) {
      const bool is_it = std::ranges::any_of(meeting.reached, [&](const auto& entry) {
        return &states_[entry.first] == &state && entry.second == index;
      });
      if (!is_it) continue;
      for (const auto& entry : meeting.reached) here.push_back(states_[entry.first].rank->rank);
    }
    for (int rank : members_of(mesh_, *ranks_, channel)) {
      if (rank != state.rank->rank && std::ranges::find(here, rank) == here.end())
        return &states_[index_of_.at(rank)];
    }
    return nullptr;
  }

  /// Follows who waits for whom until somebody comes again.
  std::string explain(const State& first) const {
    std::string text;
    std::vector<const State*> seen;
    const State* state = &first;
    while (state != nullptr && std::ranges::find(seen, state) == seen.end()) {
      seen.push_back(state);
      const std::optional<int> blocker = blocker_of(*state);
      if (!blocker) break;
      if (at(*blocker) > state->next) {
        return text + fmt::format("{}rank {} waits for its own {}, which it launches only later",
                                  text.empty() ? "" : "; ", state->rank->rank,
                                  to_string(state->rank->launches[at(*blocker)]));
      }
      const State* peer = missing_peer(*state, *blocker);
      if (peer == nullptr) break;
      text += fmt::format("{}rank {} waits in {} for rank {}", text.empty() ? "" : "; ", state->rank->rank,
                          to_string(state->rank->launches[at(*blocker)]), peer->rank->rank);
      state = peer;
    }
    return text;
  }

  const Mesh& mesh_;
  const std::vector<RankLaunches>* ranks_ = nullptr;
  std::vector<State> states_;
  std::map<int, size_t> index_of_;
  std::map<Channel, int> channel_numbers_;
  std::vector<std::vector<int>> members_;  // [channel]
  std::unordered_map<uint64_t, Meeting> meetings_;
  std::deque<size_t> ready_;
  std::deque<std::pair<size_t, int>> done_;
  bool is_finishing_ = false;
};

}  // namespace

std::string launch_fault(const Mesh& mesh, const std::vector<RankLaunches>& ranks) {
  const std::string text = mismatch(mesh, ranks);
  return text.empty() ? Paper(mesh, ranks).fault() : text;
}

}  // namespace ptrain
