// ptrain bench disk [DIRECTORY]: writing, making durable and reading as a checkpoint does it, beside a plain
// loop of write() as dd has it, and how long a small file takes to be durable.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/base/crc32c.h"
#include "launch/bench/bench.h"
#include "launch/bench/timing.h"
#include "parallel/comm/agree.h"
#include "src/io/file.h"

namespace ptrain::bench {
namespace {

constexpr int64_t piece_bytes = int64_t{4} << 20;
constexpr int rounds = 2;         // of the plain loop and of ours, in turn; the better one counts
constexpr int small_writes = 64;  // each of them made durable
constexpr int64_t small_bytes = 4096;

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

/// What `dd bs=4M conv=fsync` does.
void write_plainly(const std::filesystem::path& path, Tensor piece, int64_t bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  check(fd >= 0, ExitCode::resources, "{}: cannot be created: {}", path.string(), std::strerror(errno));
  bool is_good = true;
  for (int64_t at = 0; at < bytes && is_good; at += piece_bytes)
    is_good = ::write(fd, piece.data, static_cast<size_t>(piece_bytes)) == piece_bytes;
  is_good = is_good && ::fsync(fd) == 0;
  const int reason = errno;
  ::close(fd);
  check(is_good, ExitCode::resources, "{}: cannot be written: {}", path.string(), std::strerror(reason));
}

/// What a checkpoint does: room is taken first, every piece has its checksum.
uint32_t write_as_checkpoint(const File& file, Tensor piece) {
  uint32_t crc = 0;
  for (int64_t at = 0; at < file.bytes(); at += piece_bytes) {
    crc ^= crc32c(piece.data, static_cast<size_t>(piece_bytes));
    file.write_at(at, piece.data, piece_bytes);
  }
  return crc;
}

void read_whole(const File& file, Tensor piece) {
  for (int64_t at = 0; at < file.bytes(); at += piece_bytes) file.read_at(at, piece.data, piece_bytes);
}

struct Seconds {
  double plain = 1e30;  // written and synced
  double write = 0;     // as a checkpoint, and
  double sync = 1e30;   // to the disk
  double read = 0;      // from the disk, as far as the system forgets
  double read_again = 0;
  double small_median = 0;
  double small_worst = 0;
};

/// Measures on this rank while all others do the same; each part begins together.
class DiskTest {
 public:
  DiskTest(Runtime& runtime, const std::filesystem::path& directory, int64_t bytes)
      : world_(runtime.world),
        path_(directory / fmt::format(".ptrain-bench-{}-{}", world_.rank(), ::getpid())),
        bytes_(bytes),
        piece_({piece_bytes / 4}, DType::i32) {
    uint32_t state = 1;  // nothing that a file system could compress
    for (int32_t& word : piece_.view.span<int32_t>()) {
      state = state * 1664525 + 1013904223;
      word = static_cast<int32_t>(state ^ state >> 15);
    }
  }

  Seconds run() {
    const Scrap scrap{path_};
    double best = 1e30;
    for (int round = 0; round < rounds; ++round) {
      seconds_.plain = std::min(seconds_.plain, timed([&] { write_plainly(path_, piece_.view, bytes_); }));
      File file;
      const double write_s = timed([&] {
        file = File::create(path_, bytes_);
        write_as_checkpoint(file, piece_.view);
      });
      const double sync_s = timed([&] { file.sync(); });
      if (write_s + sync_s < best) {
        best = write_s + sync_s;
        seconds_.write = write_s, seconds_.sync = sync_s;
      }
    }
    File file;
    agreed(world_, [&] {
      drop_from_cache(path_);
      file = File::open(path_);
    });
    seconds_.read = timed([&] { read_whole(file, piece_.view); });
    seconds_.read_again = timed([&] { read_whole(file, piece_.view); });
    sync_small_files();
    return seconds_;
  }

 private:
  /// Of the slowest rank.
  double timed(const std::function<void()>& work) {
    world_.barrier();
    const double begin_s = now_s();
    agreed(world_, work);
    double seconds = now_s() - begin_s;
    world_.all_reduce(Tensor(&seconds, {1}, DType::f64), Reduce::max);
    return seconds;
  }

  void sync_small_files() {
    std::array<double, small_writes> each{};
    world_.barrier();
    agreed(world_, [&] {
      const File file = File::open_for_writing(path_);
      for (int i = 0; i < small_writes; ++i) {
        const double begin_s = now_s();
        file.write_at(i * small_bytes, piece_.view.data, small_bytes);
        file.sync();
        each[static_cast<size_t>(i)] = now_s() - begin_s;
      }
    });
    std::ranges::sort(each);
    std::array<double, 2> found = {each[small_writes / 2], each.back()};
    world_.all_reduce(Tensor(found.data(), {2}, DType::f64), Reduce::max);
    seconds_.small_median = found[0], seconds_.small_worst = found[1];
  }

  Communicator& world_;
  std::filesystem::path path_;
  int64_t bytes_;
  OwnedTensor piece_;
  Seconds seconds_;
};

}  // namespace

Report run_disk(Runtime& runtime, const LoadedConfig&) {
  const Arguments& arguments = runtime.arguments;
  const bool is_named_twice = arguments.words.size() > 1 && arguments.has("dir");
  check(!is_named_twice, ExitCode::usage, "bench disk: two directories; give it behind `disk` or as --dir");
  const std::filesystem::path directory = arguments.has("dir")         ? arguments.value("dir")
                                          : arguments.words.size() > 1 ? arguments.words[1]
                                                                       : ".";
  const int64_t bytes = arguments.integer("mebibytes", 256, 4, 1 << 20) / 4 * piece_bytes;
  const Seconds s = DiskTest(runtime, directory, bytes).run();

  const double all = static_cast<double>(bytes) * runtime.world.size();
  const auto rate = [&](double seconds) { return 1e-9 * all / seconds; };
  const double durable_s = s.write + s.sync;
  Report report;
  report.values = {{"bytes", all},
                   {"plain_s", s.plain},
                   {"write_s", s.write},
                   {"sync_s", s.sync},
                   {"of_plain", s.plain / durable_s},
                   {"read_s", s.read},
                   {"read_again_s", s.read_again},
                   {"small_sync_s", s.small_median},
                   {"small_sync_worst_s", s.small_worst}};
  report.text = fmt::format(
      "{}: {} ranks, {} MiB each\n"
      "dd, write + fsync   {:6.2f} GB/s\n"
      "write               {:6.2f} GB/s, as a checkpoint: with checksums\n"
      "write + fsync       {:6.2f} GB/s, {:.0f} % of dd\n"
      "read                {:6.2f} GB/s\n"
      "read again          {:6.2f} GB/s, from memory\n"
      "4 KiB + fsync       {:6.2f} ms, at worst {:.2f} ms of {}\n",
      directory.string(), runtime.world.size(), bytes >> 20, rate(s.plain), rate(s.write), rate(durable_s),
      100 * s.plain / durable_s, rate(s.read), rate(s.read_again), 1e3 * s.small_median, 1e3 * s.small_worst,
      small_writes);
  return report;
}

}  // namespace ptrain::bench
