// ptrain bench collectives: how fast the ranks of this job exchange and sum. Overlap and point to point:
// benchmarks/collectives.cpp.
#include "launch/bench/bench.h"
#include "launch/bench/timing.h"

namespace ptrain::bench {

Report run_collectives(Runtime& runtime, const LoadedConfig&) {
  Communicator& world = runtime.world;
  const int ranks = world.size();
  check(ranks > 1, ExitCode::usage,
        "a world of one exchanges nothing: mpirun -np N --bind-to none ptrain bench collectives");
  Report report;
  report.values = {{"ranks", ranks}, {"calls", Json::array()}};
  report.text = fmt::format("{} ranks; bytes are those of the whole tensor\n{:<16}{:>12}{:>14}{:>14}{:>12}\n",
                            ranks, "collective", "bytes", "median us", "best us", "GB/s");
  const auto add = [&](const char* name, int64_t bytes, const std::function<void()>& call) {
    const Times times = measure_together(world, call);
    report.text += fmt::format("{:<16}{:>12}{:>14.1f}{:>14.1f}{:>12.2f}\n", name, bytes, 1e6 * times.median_s,
                               1e6 * times.best_s, 1e-9 * static_cast<double>(bytes) / times.median_s);
    report.values["calls"].push_back(
        {{"name", name}, {"bytes", bytes}, {"median_s", times.median_s}, {"best_s", times.best_s}});
  };
  for (const int64_t elements : {1 << 12, 1 << 16, 1 << 20, 1 << 23}) {
    const int64_t part = elements / ranks;
    const OwnedTensor whole({part * ranks}, DType::f32), piece({part}, DType::f32);
    const int64_t bytes = whole.view.bytes();
    add("all-reduce", bytes, [&] { world.all_reduce(whole.view); });
    add("reduce-scatter", bytes, [&] { world.reduce_scatter(whole.view, piece.view); });
    add("all-gather", bytes, [&] { world.all_gather(piece.view, whole.view); });
  }
  return report;
}

}  // namespace ptrain::bench
