// ptrain bench disk [DIRECTORY]: writing, making durable and reading, as a checkpoint does it.
#include <fcntl.h>
#include <unistd.h>

#include "launch/bench/bench.h"
#include "launch/bench/timing.h"
#include "parallel/comm/agree.h"
#include "src/io/file.h"

namespace ptrain::bench {
namespace {

constexpr int64_t piece_bytes = int64_t{4} << 20;

/// Removes a file when it goes.
struct Scrap {
  std::filesystem::path path;
  ~Scrap() {
    std::error_code error;
    std::filesystem::remove(path, error);
  }
};

/// Asks the system to forget what it holds of a file in memory. It may hold on: then reading shows the
/// memory's speed, not the disk's.
void drop_from_cache(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

void read_whole(const File& file, Tensor piece) {
  for (int64_t at = 0; at < file.bytes(); at += piece_bytes) file.read_at(at, piece.data, piece_bytes);
}

}  // namespace

Report run_disk(Runtime& runtime, const LoadedConfig&) {
  const Arguments& arguments = runtime.arguments;
  const std::filesystem::path directory = arguments.words.size() > 1 ? arguments.words[1] : ".";
  const int64_t bytes = arguments.integer("mebibytes", 256, 4, 1 << 20) / 4 * piece_bytes;
  const std::filesystem::path path =
      directory / fmt::format(".ptrain-bench-{}-{}", runtime.world.rank(), ::getpid());
  const OwnedTensor piece({piece_bytes / 4}, DType::i32);
  uint32_t state = 1;  // nothing that a file system could compress
  for (int32_t& word : piece.view.span<int32_t>()) {
    state = state * 1664525 + 1013904223;
    word = static_cast<int32_t>(state ^ state >> 15);
  }
  const Scrap scrap{path};
  std::array<double, 4> seconds{};  // written, synced, read from the disk, read from memory
  const auto timed = [&](size_t which, const std::function<void()>& work) {
    runtime.world.barrier();  // all ranks at once
    const double begin_s = now_s();
    agreed(runtime.world, work);
    seconds[which] = now_s() - begin_s;
  };
  File file;
  timed(0, [&] {
    file = File::create(path, bytes);
    for (int64_t at = 0; at < bytes; at += piece_bytes) file.write_at(at, piece.view.data, piece_bytes);
  });
  timed(1, [&] { file.sync(); });
  agreed(runtime.world, [&] {
    file.close();
    drop_from_cache(path);
    file = File::open(path);
  });
  timed(2, [&] { read_whole(file, piece.view); });
  timed(3, [&] { read_whole(file, piece.view); });
  runtime.world.all_reduce(Tensor(seconds.data(), {4}, DType::f64), Reduce::max);

  const double all = static_cast<double>(bytes) * runtime.world.size();
  const auto rate = [&](double s) { return 1e-9 * all / s; };
  Report report;
  report.values = {{"bytes", all},
                   {"write_s", seconds[0]},
                   {"sync_s", seconds[1]},
                   {"read_s", seconds[2]},
                   {"read_again_s", seconds[3]}};
  report.text = fmt::format(
      "{}: {} ranks, {} MiB each\nwrite           {:.2f} GB/s\nwrite + fsync   {:.2f} GB/s\nread            "
      "{:.2f} GB/s\n"
      "read again      {:.2f} GB/s, from memory\n",
      directory.string(), runtime.world.size(), bytes >> 20, rate(seconds[0]), rate(seconds[0] + seconds[1]),
      rate(seconds[2]), rate(seconds[3]));
  return report;
}

}  // namespace ptrain::bench
