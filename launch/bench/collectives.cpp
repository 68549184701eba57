// ptrain bench collectives: how fast the ranks of this job exchange and sum, in the columns of nccl-tests.
// Overlap and point to point: benchmarks/collectives.cpp.
#include "launch/bench/bandwidth.h"
#include "launch/bench/bench.h"
#include "launch/bench/timing.h"
#include "src/io/json.h"
#include "src/train/config_plan.h"

namespace ptrain::bench {
namespace {

struct Collective {
  std::string_view name;
  CommKind kind;
  std::string_view reduces;  // "sum" or nothing
  void (*run)(Communicator& comm, Tensor whole, Tensor part);
};

constexpr Collective collectives[] = {
    {"all-reduce", CommKind::all_reduce, "sum",
     [](Communicator& comm, Tensor whole, Tensor) { comm.all_reduce(whole); }},
    {"reduce-scatter", CommKind::reduce_scatter, "sum",
     [](Communicator& comm, Tensor whole, Tensor part) { comm.reduce_scatter(whole, part); }},
    {"all-gather", CommKind::all_gather, "none",
     [](Communicator& comm, Tensor whole, Tensor part) { comm.all_gather(part, whole); }},
};

/// Who exchanges, and what lies where.
struct Place {
  std::string_view name;  // "host", "device"
  Communicator& comm;
  Context context;
  DType dtype;
  std::span<const int64_t> sizes;  // of whole tensors, bytes
};

void add_rows(Report& report, Communicator& world, const Place& place) {
  const int ranks = world.size();
  Stopwatch stopwatch(place.context);
  for (const int64_t size : place.sizes) {
    const int64_t count = size / size_bytes(place.dtype) / ranks;
    const OwnedTensor whole({count * ranks}, place.dtype, place.context.device);
    const OwnedTensor part({count}, place.dtype, place.context.device);
    const int64_t bytes = whole.view.bytes();
    for (const Collective& collective : collectives) {
      const Times times =
          stopwatch.measure_together(world, [&] { collective.run(place.comm, whole.view, part.view); });
      const double algorithm = algorithm_bandwidth(bytes, times.median_s);
      const double bus = bus_bandwidth(collective.kind, ranks, bytes, times.median_s);
      report.text +=
          fmt::format("{:<8}{:<16}{:>12}{:>12}{:>7}{:>7}{:>12.1f}{:>12.1f}{:>10.2f}{:>10.2f}\n", place.name,
                      collective.name, bytes, whole.view.numel(), name_of(place.dtype), collective.reduces,
                      1e6 * times.median_s, 1e6 * times.best_s, 1e-9 * algorithm, 1e-9 * bus);
      report.values["calls"].push_back({{"name", collective.name},
                                        {"memory", place.name},
                                        {"bytes", bytes},
                                        {"count", whole.view.numel()},
                                        {"dtype", name_of(place.dtype)},
                                        {"median_s", times.median_s},
                                        {"best_s", times.best_s},
                                        {"algorithm_bytes_per_s", algorithm},
                                        {"bus_bytes_per_s", bus}});
    }
    if (place.context.stream != nullptr) place.context.stream->synchronize();  // before the memory goes
  }
}

/// From latency to bandwidth, bytes.
constexpr int64_t host_sizes[] = {1 << 14, 1 << 18, 1 << 22, 1 << 25};
constexpr int64_t device_sizes[] = {1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28};

}  // namespace

Report run_collectives(Runtime& runtime, const LoadedConfig& loaded) {
  Communicator& world = runtime.world;
  const int ranks = world.size();
  check(ranks > 1, ExitCode::usage,
        "a world of one exchanges nothing: mpirun -np N --bind-to none ptrain bench collectives");
  Report report;
  report.values = {{"ranks", ranks}, {"device", device_name(runtime)}, {"calls", Json::array()}};
  report.text = fmt::format(
      "{} ranks; size and count are those of the whole tensor, bandwidths are of the median\n"
      "{:<8}{:<16}{:>12}{:>12}{:>7}{:>7}{:>12}{:>12}{:>10}{:>10}\n"
      "{:<8}{:<16}{:>12}{:>12}{:>7}{:>7}{:>12}{:>12}{:>10}{:>10}\n",
      ranks, "memory", "collective", "size", "count", "type", "redop", "time", "best", "algbw", "busbw", "",
      "", "(B)", "(elements)", "", "", "(us)", "(us)", "(GB/s)", "(GB/s)");
  if (runtime.gpu != nullptr) {
    const Compute compute = compute_of(loaded.config, found_device(runtime.context.device));
    const MeshComms comms = tensor_group(runtime);
    report.values["transport"] = runtime.gpu->comms.nccl == nullptr ? "staged" : "nccl";
    add_rows(report, world,
             {.name = "device",
              .comm = *comms.tensor,
              .context = runtime.context,
              .dtype = state_types(compute.precision).param,
              .sizes = device_sizes});
  }
  Context host;
  host.threads = runtime.context.threads;
  add_rows(report, world,
           {.name = "host", .comm = world, .context = host, .dtype = DType::f32, .sizes = host_sizes});
  return report;
}

}  // namespace ptrain::bench
