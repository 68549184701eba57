#include "parallel/run/watch_frames.h"

namespace ptrain {
namespace {

using Phase = std::array<char, sizeof OpSnapshot::phase>;

// What is shown as text ends somewhere.
void end_texts(OpSnapshot& ops) {
  ops.phase[sizeof ops.phase - 1] = 0;
  for (std::vector<OpLine>* lines : {&ops.open, &ops.recent})
    for (OpLine& line : *lines) line.name[sizeof line.name - 1] = 0;
  for (GroupLine& group : ops.groups) group.name[sizeof group.name - 1] = 0;
}

}  // namespace

FrameWriter to_frame(const WatchState& state, Detail detail) {
  const OpSnapshot& ops = state.ops;
  Phase phase;
  std::memcpy(phase.data(), ops.phase, phase.size());
  FrameWriter frame;
  frame.put(state.rank)
      .put(state.stalled_s)
      .put(state.time)
      .put(phase)
      .put(ops.step)
      .put(static_cast<uint32_t>(ops.is_long));
  frame.put_all<OpLine>(ops.open).put_all<GroupLine>(ops.groups);
  if (detail == Detail::all) frame.put_all<OpLine>(ops.recent);
  if (detail == Detail::open) frame.put_all<OpLine>({});
  return frame;
}

std::optional<WatchState> to_state(const Frame& frame) {
  FrameReader reader(frame.body);
  WatchState state;
  state.rank = reader.get<int32_t>();
  state.stalled_s = reader.get<double>();
  state.time = reader.get<RankTime>();
  const auto phase = reader.get<Phase>();
  std::memcpy(state.ops.phase, phase.data(), phase.size());
  state.ops.step = reader.get<int64_t>();
  state.ops.is_long = reader.get<uint32_t>() != 0;
  state.ops.open = reader.get_all<OpLine>(OpRing::max_depth);
  state.ops.groups = reader.get_all<GroupLine>(OpRing::max_groups);
  state.ops.recent = reader.get_all<OpLine>(OpRing::size);
  if (!reader.is_good()) return {};
  end_texts(state.ops);
  return state;
}

}  // namespace ptrain
