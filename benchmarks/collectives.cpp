// How fast are the collectives between the ranks of one mpirun? Prints one line a size and a kind, from rank
// 0:
//   mpirun -np 8 build/benchmarks/bench_collectives
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/base/buffer.h"
#include "kernels/base/log.h"
#include "parallel/comm/session.h"

namespace ptrain {
namespace {

double seconds() {
  using clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(clock::now().time_since_epoch()).count();
}

// The median and the best time of a call over some repetitions, started together.
struct Times {
  double median_s = 0;
  double best_s = 0;
};

template <class Work>
Times measure(Communicator& world, Work work) {
  constexpr double budget_s = 0.3;
  std::vector<double> times;
  work();  // touches the memory for the first time
  for (double spent = 0; spent < budget_s && times.size() < 200;) {
    world.barrier();
    const double begin = seconds();
    work();
    // The slowest rank's time counts, and all ranks must agree on when to stop.
    double slowest = seconds() - begin;
    world.all_reduce(Tensor(&slowest, {1}, DType::f64), Reduce::max);
    times.push_back(slowest);
    spent += slowest;
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front()};
}

// A stand-in for the last backward: a fixed amount of arithmetic in slices of about 0.1 ms.
void compute_slice() {
  volatile float sum = 0;
  for (int i = 0; i < 40'000; ++i) sum = sum + 1.0F;
}

// How much of a started reduction hides behind computing ranks that poll now and then.
void bench_overlap(Communicator& world) {
  constexpr int slices = 400;
  const int64_t per_rank = (int64_t{4} << 20) / world.size();
  OwnedTensor whole({per_rank * world.size()}, DType::f32);
  OwnedTensor part({per_rank}, DType::f32);
  const auto compute = [&] {
    for (int i = 0; i < slices; ++i) compute_slice();
  };
  const Times alone = measure(world, compute);
  const Times reduction = measure(world, [&] { world.reduce_scatter(whole.view, part.view); });
  const Times both = measure(world, [&] {
    Transfer transfer = world.start_reduce_scatter(whole.view, part.view);
    for (int i = 0; i < slices; ++i) {
      compute_slice();
      world.poll();
    }
    transfer.wait();
  });
  if (world.rank() != 0) return;
  fmt::print("overlap: computing {:.1f} ms, reduce_scatter of {} bytes {:.1f} ms, both at once {:.1f} ms\n",
             alone.median_s * 1e3, whole.view.bytes(), reduction.median_s * 1e3, both.median_s * 1e3);
}

void bench(Communicator& world) {
  const int ranks = world.size();
  if (world.rank() == 0) {
    fmt::print("{} ranks; bytes are those of the whole tensor\n{:<16}{:>12}{:>14}{:>14}{:>12}\n", ranks,
               "kind", "bytes", "median us", "best us", "GB/s");
  }
  const auto print = [&](const char* kind, int64_t bytes, const Times& times) {
    if (world.rank() != 0) return;
    fmt::print("{:<16}{:>12}{:>14.1f}{:>14.1f}{:>12.2f}\n", kind, bytes, times.median_s * 1e6,
               times.best_s * 1e6, static_cast<double>(bytes) / times.median_s / 1e9);
    std::fflush(stdout);
  };
  for (const int64_t per_rank : {16, 2048, 65536 / ranks, 1 << 18, 1 << 21}) {
    const int64_t count = per_rank * ranks;
    OwnedTensor whole({count}, DType::f32);
    OwnedTensor part({per_rank}, DType::f32);
    const int64_t bytes = whole.view.bytes();
    print("all_reduce", bytes, measure(world, [&] { world.all_reduce(whole.view); }));
    print("reduce_scatter", bytes, measure(world, [&] { world.reduce_scatter(whole.view, part.view); }));
    print("all_gather", bytes, measure(world, [&] { world.all_gather(part.view, whole.view); }));
    print("broadcast", bytes, measure(world, [&] { world.broadcast(whole.view, 0); }));
    OwnedTensor received({per_rank}, DType::f32);
    print("to the right", part.view.bytes(), measure(world, [&] {
            Transfer receive =
                world.irecv(received.view, (world.rank() + ranks - 1) % ranks, Lane::activation);
            Transfer send = world.isend(part.view, (world.rank() + 1) % ranks, Lane::activation);
            receive.wait();
            send.wait();
          }));
  }
  print("barrier", 0, measure(world, [&] { world.barrier(); }));
}

}  // namespace
}  // namespace ptrain

int main() {
  ptrain::Session session(ptrain::find_launcher([](const char* name) { return std::getenv(name); }));
  ptrain::log::configure(ptrain::log::Level::info, session.world().rank(), session.world().size());
  return session.run([&] {
    ptrain::bench(session.world());
    ptrain::bench_overlap(session.world());
    return 0;
  });
}
