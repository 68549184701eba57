#include "parallel/comm/clock.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <vector>

#include "kernels/base/error.h"
#include "parallel/comm/host_objects.h"

namespace ptrain {
namespace {

constexpr Lane lane = Lane::control;

Tensor one(double& value) {
  return Tensor(&value, {1}, DType::f64);
}

/// Rank 0's side of the rounds with `peer`.
ClockOffset ask(Communicator& world, int peer, const RankClock& clock, int rounds) {
  std::vector<ClockRound> done;
  for (int i = 0; i < rounds; ++i) {
    ClockRound round;
    Transfer answer = world.irecv(one(round.answered_s), peer, lane);
    double question = 0;
    round.sent_s = clock.now_s();
    Transfer sent = world.isend(one(question), peer, lane);
    answer.wait();
    round.received_s = clock.now_s();
    sent.wait();
    done.push_back(round);
  }
  return offset_of(done);
}

void answer(Communicator& world, const RankClock& clock, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    double question = 0;
    world.irecv(one(question), 0, lane).wait();
    double now_s = clock.now_s();
    world.isend(one(now_s), 0, lane).wait();
  }
}

}  // namespace

RankClock host_clock() {
  RankClock clock;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> clock.name;
  std::error_code error;
  const std::filesystem::path time = std::filesystem::read_symlink("/proc/self/ns/time", error);
  if (!clock.name.empty() && !error) clock.name += " " + time.string();
  clock.now_s = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  return clock;
}

ClockOffset offset_of(std::span<const ClockRound> rounds) {
  check(!rounds.empty(), "no round to tell a clock's offset from");
  const ClockRound& best = *std::ranges::min_element(
      rounds, {}, [](const ClockRound& round) { return round.received_s - round.sent_s; });
  return {.offset_s = best.sent_s + (best.received_s - best.sent_s) / 2 - best.answered_s,
          .error_s = (best.received_s - best.sent_s) / 2};
}

ClockOffset clock_offset(Communicator& world, const RankClock& clock, int rounds) {
  // 1. Who reads which clock: that of the first rank with the same name.
  const std::vector<std::string> names = all_gather_text(world, clock.name);
  std::vector<int> first_of;
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::string& name = names[static_cast<size_t>(rank)];
    const auto same = name.empty() ? names.begin() + rank : std::ranges::find(names, name);
    first_of.push_back(static_cast<int>(same - names.begin()));
  }
  // 2. Rank 0 asks one rank of every other clock, one after the other: nothing else is under way.
  std::vector<ClockOffset> offsets(names.size());
  for (int rank = 1; rank < world.size(); ++rank) {
    if (first_of[static_cast<size_t>(rank)] != rank) continue;
    if (world.rank() == 0) offsets[static_cast<size_t>(rank)] = ask(world, rank, clock, rounds);
    if (world.rank() == rank) answer(world, clock, rounds);
  }
  // 3. Rank 0 tells.
  static_assert(sizeof(ClockOffset) == 2 * sizeof(double));
  world.broadcast(Tensor(offsets.data(), {2 * std::ssize(offsets)}, DType::f64), 0);
  return offsets[static_cast<size_t>(first_of[static_cast<size_t>(world.rank())])];
}

}  // namespace ptrain
