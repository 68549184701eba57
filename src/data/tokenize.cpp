#include "src/data/tokenize.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "kernels/base/error.h"
#include "kernels/base/progress.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/spread.h"

namespace ptrain {
namespace {

/// The share of `count` things that part `part` of `parts` has.
std::pair<size_t, size_t> share(size_t count, int part, int parts) {
  const auto p = static_cast<size_t>(part);
  const auto n = static_cast<size_t>(parts);
  return {count * p / n, count * (p + 1) / n};
}

/// Calls work(i) for i in [0, count) on several threads; throws again what the lowest i threw.
void for_each_parallel(size_t count, int threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  std::map<size_t, std::exception_ptr> errors;  // guarded by mutex
  const auto worker = [&] {
    for (size_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        errors.emplace(i, std::current_exception());
        next = count;  // what comes before i is already under way
      }
    }
  };
  std::vector<std::jthread> helpers;
  for (size_t i = 1; i < std::min(count, static_cast<size_t>(std::max(threads, 1))); ++i)
    helpers.emplace_back(worker);
  worker();
  helpers.clear();  // waits for them
  if (!errors.empty()) std::rethrow_exception(errors.begin()->second);
}

Tensor view(std::vector<int64_t>& values) {
  return Tensor(values.data(), Shape{static_cast<int64_t>(values.size())}, DType::i64);
}

void check_ids(const Document& document, int64_t vocabulary_size, const TextFiles& files, size_t file,
               int64_t line) {
  const auto is_bad = [&](int32_t id) { return id < 0 || id >= vocabulary_size; };
  const auto bad = std::find_if(document.ids.begin(), document.ids.end(), is_bad);
  if (bad != document.ids.end()) {
    fail(ExitCode::input, "{}: token {} has id {}, but the model's vocabulary has {} (0 to {})",
         files.where(file, line), bad - document.ids.begin(), *bad, vocabulary_size, vocabulary_size - 1);
  }
  for (size_t t = 0; t < document.labels.size(); ++t) {
    const int32_t label = document.labels[t];
    if (label == not_supervised || !is_bad(label)) continue;
    fail(ExitCode::input,
         "{}: token {} has label {}: neither {} nor an id of the model's vocabulary (0 to {})",
         files.where(file, line), t, label, not_supervised, vocabulary_size - 1);
  }
}

/// Adds a word to a list of words for people unless it is there.
void mention(std::string& list, std::string_view word) {
  if (word.empty() || list.find(word) != std::string::npos) return;
  if (!list.empty()) list += ", ";
  list += word;
}

/// How each file's rows are encoded, found out when the file is first met.
class FileEncoders {
 public:
  explicit FileEncoders(const EncodeJob& job) : job_(job), found_(job.files.num_files()) {}

  void prepare(size_t file) {
    if (found_[file]) return;
    const auto [text, line] = job_.files.first_line(file);
    if (text.empty()) return;
    found_[file] = job_.encoding.begin_file(text, job_.files.where(file, line));
    mention(rows_, found_[file]->rows);
  }
  const EncodeLine& operator[](size_t file) const { return found_[file]->encode; }
  const std::string& rows() const { return rows_; }

 private:
  const EncodeJob& job_;
  std::vector<std::optional<Encoding::ForFile>> found_;
  std::string rows_;
};

struct Placed {
  Document document;
  int64_t line = 0;
};

std::vector<Placed> encode_block(const EncodeJob& job, const FileEncoders& encoders, size_t index) {
  const TextBlock& block = job.files.blocks()[index];
  const BlockLines found = job.files.lines(block, job.scan.newlines_before[index]);
  std::vector<Placed> out;
  out.reserve(found.lines.size());
  for (const Line& line : found.lines) {
    progress::tick();
    Placed placed{encoders[block.file](line.text, job.files.where(block.file, line.number)), line.number};
    check_ids(placed.document, job.vocabulary_size, job.files, block.file, line.number);
    out.push_back(std::move(placed));
  }
  return out;
}

std::filesystem::path spill_path(const std::filesystem::path& path, int rank) {
  return path.string() + fmt::format(".part-{}", rank);
}

/// Files that go away with the object.
struct Copies {
  Copies() = default;
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;
  ~Copies() {
    std::error_code ignored;
    for (const std::filesystem::path& path : paths) std::filesystem::remove(path, ignored);
  }
  std::vector<std::filesystem::path> paths;
};

/// A collective: the spills of ranks on other disks, under the same names on this one.
std::optional<Error> bring_spills(const std::filesystem::path& path, const Storage& storage, Copies& copies) {
  std::optional<Error> fault;
  if (storage.firsts() == nullptr) return fault;
  for (int rank = 0; rank < storage.world().size(); ++rank) {
    const int disk = storage.disks().of_rank[static_cast<size_t>(rank)];
    if (disk != storage.disk()) copies.paths.push_back(spill_path(path, rank));
    const std::optional<Error> found = spread_file(*storage.firsts(), disk, spill_path(path, rank));
    if (!fault) fault = found;
  }
  return fault;
}

/// The sum of what the ranks have, on every rank.
TokenTotals summed(const TokenTotals& mine, Communicator& comm) {
  std::vector<int64_t> part = {mine.documents, mine.tokens,       mine.supervised,
                               mine.id_end,    mine.unsupervised, mine.other_labels};
  std::vector<int64_t> whole(part.size() * static_cast<size_t>(comm.size()));
  comm.all_gather(view(part), view(whole));
  TokenTotals totals;
  for (size_t i = 0; i < whole.size(); i += part.size()) {
    totals.add({whole[i], whole[i + 1], whole[i + 2], whole[i + 3], whole[i + 4], whole[i + 5]});
  }
  return totals;
}

}  // namespace

TextScan scan_text(const TextFiles& files, int threads, Communicator& comm) {
  const auto& blocks = files.blocks();
  const auto [begin, end] = share(blocks.size(), comm.rank(), comm.size());
  std::vector<int64_t> mine(2 * (end - begin));
  agreed(comm, [&, begin = begin, end = end] {
    for_each_parallel(end - begin, threads, [&](size_t i) {
      const BlockScan scan = files.scan(blocks[begin + i]);
      progress::tick();
      mine[2 * i] = static_cast<int64_t>(scan.hash);
      mine[2 * i + 1] = scan.newlines;
    });
  });
  std::vector<int64_t> counts;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto [from, to] = share(blocks.size(), rank, comm.size());
    counts.push_back(static_cast<int64_t>(2 * (to - from)));
  }
  std::vector<int64_t> whole(2 * blocks.size());
  comm.all_gather_varied(view(mine), view(whole), counts);
  std::vector<BlockScan> scans;
  TextScan out;
  int64_t newlines = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].begin == 0) newlines = 0;
    out.newlines_before.push_back(newlines);
    newlines += whole[2 * i + 1];
    scans.push_back({static_cast<uint64_t>(whole[2 * i]), whole[2 * i + 1]});
  }
  out.digest = content_digest(files, scans);
  return out;
}

std::string encode_blocks(const EncodeJob& job, size_t begin, size_t end, const TakeDocument& take) {
  FileEncoders encoders(job);
  // Some blocks at a time, so that memory stays bounded and documents leave in order.
  const auto wave = static_cast<size_t>(4 * std::max(job.threads, 1));
  for (size_t first = begin; first < end; first += wave) {
    const size_t count = std::min(wave, end - first);
    for (size_t i = 0; i < count; ++i) encoders.prepare(job.files.blocks()[first + i].file);
    std::vector<std::vector<Placed>> encoded(count);
    for_each_parallel(count, job.threads,
                      [&](size_t i) { encoded[i] = encode_block(job, encoders, first + i); });
    for (size_t i = 0; i < count; ++i) {
      for (Placed& placed : encoded[i]) {
        take(std::move(placed.document), job.files.blocks()[first + i].file, placed.line);
      }
    }
  }
  return encoders.rows();
}

TokenTotals write_tokens(const EncodeJob& job, const std::filesystem::path& path, const Storage& storage) {
  Communicator& comm = storage.world();
  std::unique_ptr<TokenSpill> spill;
  std::string rows;
  // 1. Each rank encodes its share of the text into a file of its own.
  agreed(comm, [&] {
    const auto [begin, end] = share(job.files.blocks().size(), comm.rank(), comm.size());
    spill = std::make_unique<TokenSpill>(spill_path(path, comm.rank()));
    rows =
        encode_blocks(job, begin, end, [&](Document&& document, size_t, int64_t) { spill->add(document); });
    spill->finish();
  });
  // 2. What lies on other disks comes here.
  Copies copies;
  agree(comm, bring_spills(path, storage, copies));
  // 3. One rank of each disk joins them: the file is as fast as the disk then, and no two hosts write to one
  //    page.
  const TokenTotals totals = summed(spill->totals(), comm);
  std::string all_rows;
  for (const std::string& found : all_gather_text(comm, rows)) mention(all_rows, found);
  agreed(comm, [&] {
    if (!storage.is_first_of_disk() || totals.documents == 0) return;
    std::vector<std::filesystem::path> spills;
    for (int rank = 0; rank < comm.size(); ++rank) {
      spills.push_back(spill_path(path, rank));
      check(std::filesystem::exists(spills.back()), ExitCode::resources,
            "{}: rank {} wrote it, rank {} does not see it: all ranks must share the directory {}",
            spills.back().string(), rank, comm.rank(), path.parent_path().string());
    }
    write_token_file(path, spills, totals, {job.scan.digest, job.encoding.digest, all_rows});
  });
  return totals;
}

}  // namespace ptrain
