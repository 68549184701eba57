// What files do for checkpoints: writing and loading one of a model's size beside dd with fsync on the same
// disk, and how often a model's bytes are read when many ranks load it. What a save costs a training step is
// checkpoint.py's question.
//
//   bench_checkpoint MODEL_DIR SCRATCH_DIR [RANKS]     ranks are threads; needs 9 times the model's f32 bytes
//   there
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "kernels/base/buffer.h"
#include "kernels/base/clock.h"
#include "parallel/comm/thread_comm.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/find.h"
#include "src/io/load.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr int turns = 3;

/// Seconds of a shell's command.
double run(const std::string& command) {
  const double begin_s = now_s();
  check(std::system(command.c_str()) == 0, ExitCode::resources, "failed: {}", command);
  return now_s() - begin_s;
}

/// A rank's share of every tensor, as ZeRO would have it: weight and two moments.
struct Share {
  std::vector<StateSlice> slices;
  std::vector<OwnedTensor> memory;

  Share(const HfDir& model, int rank, int ranks) {
    for (const StoredTensor& tensor : model.tensors()) {
      const Slice slice{whole(tensor.shape), part_of(tensor.shape.numel(), rank, ranks)};
      StateSlice& out = slices.emplace_back(StateSlice{tensor.name, tensor.shape, slice, {}, {}, {}});
      for (Tensor* part : {&out.weight, &out.first_moment, &out.second_moment}) {
        memory.emplace_back(Shape{slice.numel()}, DType::f32);
        *part = memory.back().view;
        std::fill_n(part->as<float>(), part->numel(), 1.0f);
      }
    }
  }
};

struct Rates {
  double save_s = 1e9, load_s = 1e9, write_s = 1e9, read_s = 1e9;
};

/// Each turn meets the same minute of the disk with all four; the best of each counts.
Rates measure(const HfDir& model, const fs::path& scratch, int ranks, int64_t bytes) {
  Rates best;
  const std::string file = (scratch / "dd").string();
  for (int turn = 0; turn < turns; ++turn) {
    const std::string size = fmt::format("bs=4M count={} 2>/dev/null", (bytes + (4 << 20) - 1) >> 22);
    best.write_s =
        std::min(best.write_s, run(fmt::format("dd if=/dev/zero of={} conv=fsync {}", file, size)));
    best.read_s = std::min(best.read_s, run(fmt::format("dd if={} of=/dev/null {}", file, size)));
    fs::remove(file);
    run_thread_ranks(ranks, [&](Communicator& world) {
      const Share share(model, world.rank(), ranks);
      SaveRequest request{.root = scratch, .step = turn + 1, .keep = 1};
      for (const StoredTensor& tensor : model.tensors())
        request.tensors.push_back({tensor.name, tensor.shape, DType::f32});
      world.barrier();
      double begin_s = now_s();
      save_checkpoint(world, request, share.slices);
      world.barrier();
      if (world.rank() == 0) best.save_s = std::min(best.save_s, now_s() - begin_s);
      world.barrier();
      begin_s = now_s();
      load_checkpoint(world, *find_newest(scratch), share.slices);
      world.barrier();
      if (world.rank() == 0) best.load_s = std::min(best.load_s, now_s() - begin_s);
    });
  }
  fs::remove_all(scratch / checkpoint_name(turns));
  return best;
}

/// Bytes that all ranks together read when each loads the whole model.
int64_t bytes_read(const HfDir& model, int ranks) {
  int64_t total = 0;
  run_thread_ranks(ranks, [&](Communicator& world) {
    std::vector<WantedSlice> wanted;
    std::vector<OwnedTensor> memory;
    for (const StoredTensor& tensor : model.tensors()) {
      memory.emplace_back(Shape{tensor.shape.numel()}, DType::f32);
      wanted.push_back({tensor.name, tensor.shape, whole_of(tensor.shape), memory.back().view});
    }
    int64_t read = load_slices(world, source_of(model), wanted);
    world.all_reduce(Tensor(&read, {1}, DType::i64));
    if (world.rank() == 0) total = read;
  });
  return total;
}

int main_of(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("bench_checkpoint MODEL_DIR SCRATCH_DIR [RANKS]\n", stderr);
    return 2;
  }
  const HfDir model = HfDir::open(argv[1]);
  const fs::path scratch = fs::path(argv[2]) / "bench-checkpoint";
  const int ranks = argc > 3 ? std::atoi(argv[3]) : 2;
  fs::create_directories(scratch);
  int64_t elements = 0, stored_bytes = 0;
  for (const StoredTensor& tensor : model.tensors()) {
    elements += tensor.shape.numel();
    stored_bytes += tensor.shape.numel() * size_bytes(tensor.dtype);
  }
  const int64_t bytes = 3 * 4 * elements;
  const Rates rates = measure(model, scratch, ranks, bytes);
  fs::remove_all(scratch);
  const auto rate = [&](double seconds) { return static_cast<double>(bytes) / seconds / 1e9; };
  fmt::print("a checkpoint of {:.3f} GB by {} ranks, the best of {} turns\n",
             static_cast<double>(bytes) / 1e9, ranks, turns);
  fmt::print("save {:.2f} GB/s   dd with fsync {:.2f} GB/s   {:.0f} %\n", rate(rates.save_s),
             rate(rates.write_s), 100 * rates.write_s / rates.save_s);
  fmt::print("load {:.2f} GB/s   {:.0f} % of dd with fsync; dd from the cache to nowhere {:.2f} GB/s\n",
             rate(rates.load_s), 100 * rates.write_s / rates.load_s, rate(rates.read_s));
  const int64_t read = bytes_read(model, 6);
  fmt::print("6 ranks load the model: {} bytes read of {}, {:.3f} times\n", read, stored_bytes,
             static_cast<double>(read) / static_cast<double>(stored_bytes));
  return 0;
}

}  // namespace
}  // namespace ptrain

int main(int argc, char** argv) {
  try {
    return ptrain::main_of(argc, argv);
  } catch (const ptrain::Error& error) {
    std::fprintf(stderr, "bench_checkpoint: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
