// The order in which a save reaches the disk, from the system's calls as strace sees them: every shard, then
// the manifest's rename, the directory, the checkpoint's rename, its parent, and only then an older one's
// end.
#include <map>
#include <set>

#include "src/io/checkpoint.h"
#include "src/io/file.h"
#include "tests/faults/job.h"
#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

namespace fs = std::filesystem;

/// A call that succeeded. strace prints calls in the order in which they begin; one that others interrupt
/// ends in a later line.
struct Call {
  std::string name;
  std::string path, other;  // other: what a rename makes of it
  int begin = 0, end = 0;   // lines
};

/// The text between two marks behind `from`, which moves behind it.
std::string between(const std::string& text, const std::string& open, const std::string& close,
                    size_t& from) {
  const size_t begin = text.find(open, from);
  if (begin == std::string::npos) return "";
  const size_t end = text.find(close, begin + open.size());
  if (end == std::string::npos) return "";
  from = end + close.size();
  return text.substr(begin + open.size(), end - begin - open.size());
}

/// `fsync(7</a/b>)`, `rename("/a", "/b")`, `unlinkat(5</a>, "b", 0)`.
Call call_of(const std::string& name, const std::string& arguments, int line) {
  Call call{name, "", "", line, line};
  size_t at = 0;
  if (name == "fsync" || name == "fdatasync" || name == "pwrite64") {
    call.path = between(arguments, "<", ">", at);
    return call;
  }
  std::vector<std::string> paths;
  while (at < arguments.size()) {
    // A directory's descriptor, where there is one, is what a relative path begins at.
    const size_t quote = arguments.find('"', at);
    if (quote == std::string::npos) break;
    const std::string before = arguments.substr(at, quote - at);
    size_t inside = 0;
    const fs::path base = between(before, "<", ">", inside);
    paths.push_back((base / between(arguments, "\"", "\"", at)).string());
  }
  if (!paths.empty()) call.path = paths[0];
  if (paths.size() > 1) call.other = paths[1];
  return call;
}

std::vector<Call> calls_of(const std::string& text) {
  std::vector<Call> calls;
  std::map<std::string, Call> unfinished;  // by process
  int line_number = 0;
  std::stringstream stream(text);
  for (std::string line; std::getline(stream, line); ++line_number) {
    const size_t blank = line.find(' ');
    const std::string process = line.substr(0, blank);
    const size_t begin = line.find_first_not_of(' ', blank);
    if (begin == std::string::npos) continue;
    const bool is_success = line.find(") = -1 ") == std::string::npos;
    if (line.compare(begin, 5, "<... ") == 0) {
      const auto it = unfinished.find(process);
      if (it != unfinished.end() && is_success) {
        calls.push_back(it->second);
        calls.back().end = line_number;
      }
      unfinished.erase(process);
      continue;
    }
    const size_t open = line.find('(', begin);
    if (open == std::string::npos) continue;
    const Call call = call_of(line.substr(begin, open - begin), line.substr(open + 1), line_number);
    if (line.find("<unfinished ...>") != std::string::npos) {
      unfinished[process] = call;
    } else if (is_success) {
      calls.push_back(call);
    }
  }
  return calls;
}

class Order {
 public:
  Order(std::vector<Call> calls, fs::path root, Tally& tally)
      : calls_(std::move(calls)), root_(std::move(root)), tally_(tally) {}

  /// The commit of a step; `files` are those of its manifest. `deleted`: the step that goes then, 0: none.
  void judge(int64_t step, const std::vector<std::string>& files, int64_t deleted) {
    ++tally_.injected;
    const size_t faults = tally_.faults.size();
    const fs::path making = root_ / (".tmp-" + checkpoint_name(step));
    const fs::path manifest = making / manifest_name;
    const Call* named = rename_to(manifest);
    const Call* shown = rename_to(root_ / checkpoint_name(step));
    tally_.expect(named != nullptr && shown != nullptr, fmt::format("step {}: a rename is missing", step));
    if (named == nullptr || shown == nullptr) return;
    for (const std::string& file : files)
      expect_sync(step, making / file, last_write(making / file), named->begin);
    expect_sync(step, named->path, 0, named->begin);
    expect_sync(step, making / "state", 0, shown->begin);
    expect_sync(step, making, named->end, shown->begin);
    const int deletion = deleted > 0 ? first_touch(deleted) : std::numeric_limits<int>::max();
    expect_sync(step, root_, shown->end, deletion);
    tally_.recovered += tally_.faults.size() == faults;
  }

 private:
  const Call* rename_to(const fs::path& path) const {
    for (const Call& call : calls_)
      if (call.name.starts_with("rename") && call.other == path) return &call;
    return nullptr;
  }
  /// The first rename or unlink of anything in a step's directory.
  int first_touch(int64_t step) const {
    int first = std::numeric_limits<int>::max();
    const std::string path = root_ / checkpoint_name(step);
    for (const Call& call : calls_) {
      const bool is_name = call.path == path || call.path.starts_with(path + "/");
      if (is_name && (call.name.starts_with("rename") || call.name.starts_with("unlink"))) {
        first = std::min(first, call.begin);
      }
    }
    tally_.expect(first != std::numeric_limits<int>::max(), fmt::format("step {} was not deleted", step));
    return first;
  }
  int last_write(const fs::path& path) const {
    int last = 0;
    for (const Call& call : calls_)
      if (call.name.starts_with("pwrite") && call.path == path) last = std::max(last, call.end);
    return last;
  }
  void expect_sync(int64_t step, const fs::path& path, int after, int before) {
    std::set<std::string> names = {path};  // it may have had another one while it was written
    for (const Call& call : calls_)
      if (call.name.starts_with("rename") && call.other == path && call.begin < before)
        names.insert(call.path);
    for (const Call& call : calls_) {
      const bool is_sync = call.name == "fsync" || call.name == "fdatasync";
      if (is_sync && names.contains(call.path) && call.begin >= after && call.end < before) return;
    }
    tally_.expect(false, fmt::format("step {}: {} has no fsync between lines {} and {} of the trace", step,
                                     path.string(), after, before));
  }

  std::vector<Call> calls_;
  fs::path root_;
  Tally& tally_;
};

}  // namespace

Tally order_on_disk(int saves) {
  Tally tally{.part = "order of fsync and rename"};
  const TemporaryDirectory directory;
  const std::string trace = directory.path() / "trace";
  const std::vector<std::string> strace = {
      "strace",
      "-f",
      "-y",
      "-o",
      trace,
      "-e",
      "trace=pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat",
      "-s",
      "0"};
  if (run_program({"sh", "-c", "strace -o /dev/null true"}).code != 0) {
    tally.skipped = "strace is not there or may not trace (Debian: apt install strace)";
    return tally;
  }
  const TinyRun run;
  const ProgramResult result = run_program(
      joined(strace, command(4, {run.config(), "--batch.global", "6", "--parallel.tensor", "2",
                                 "--parallel.pipeline", "2", "--train.steps", std::to_string(saves),
                                 "--checkpoint.every", "1", "--checkpoint.keep", "1"})),
      job_variables());
  check(result.code == 0, "the traced run ended with {}: {}", result.code, result.err);
  const fs::path root = fs::canonical(run.output()) / "checkpoints";
  Order order(calls_of(read_text(trace, 1 << 28)), root, tally);
  // The files of every step are those of the last one, which is still there.
  std::vector<std::string> files;
  for (const ManifestFile& file : open_manifest(root / checkpoint_name(saves)).files)
    files.push_back(file.name);
  for (int64_t step = 1; step <= saves; ++step) order.judge(step, files, step - 1);
  tally.notes.push_back(
      fmt::format("{} saves of {} files: the last write of each < its fsync < the manifest's rename < the "
                  "directory's fsync < the checkpoint's rename < its parent's fsync < deletion of "
                  "the one before",
                  saves, files.size()));
  return tally;
}

}  // namespace ptrain::faults
