// Files of a checkpoint cut short, with flipped bits and with bursts of wrong bytes: each is refused, named,
// and the checkpoint before is taken. A run of four ranks writes the checkpoints; they are judged in this
// process.
#include <unistd.h>

#include <set>

#include "kernels/base/buffer.h"
#include "kernels/base/error.h"
#include "kernels/base/rng.h"
#include "parallel/comm/self_comm.h"
#include "src/io/file.h"
#include "src/io/find.h"
#include "tests/faults/job.h"
#include "tests/faults/parts.h"

namespace ptrain::faults {
namespace {

namespace fs = std::filesystem;
using Kind = Manifest::Kind;

constexpr int64_t cuts_per_file = 20;
constexpr uint64_t most_burst_bytes = 4096;

std::string text_of(const fs::path& path) {
  return read_text(path, 1 << 28);
}

/// What this process says on stderr meanwhile.
std::string stderr_during(const std::function<void()>& work) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "err";
  std::fflush(stderr);
  const int before = ::dup(STDERR_FILENO);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::dup2(file, STDERR_FILENO);
  ::close(file);
  work();
  std::fflush(stderr);
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  return text_of(path);
}

/// Two checkpoints with every kind of file and tensor: two safetensors files, index, masters.
class Specimen {
 public:
  Specimen() {
    put(run_.model() / "generation_config.json", "{\"bos_token_id\": 1}\n");
    Job job(4, {run_.config(), "--batch.global", "6", "--parallel.tensor", "2", "--parallel.pipeline", "2",
                "--train.steps", "2", "--checkpoint.every", "1", "--checkpoint.dtype", "bf16"});
    const ProgramResult result = job.wait();
    check(result.code == 0, "the run that writes the checkpoints ended with {}: {}", result.code, result.err);
    for (const auto& entry : fs::recursive_directory_iterator(damaged_step()))
      if (entry.is_regular_file()) files_.push_back(fs::relative(entry.path(), damaged_step()));
    std::sort(files_.begin(), files_.end());
    const Manifest manifest = open_manifest(damaged_step());
    for (const StoredTensor& tensor : manifest.of(Kind::weight)) {
      StateSlice slice{tensor.name, tensor.shape, whole_of(tensor.shape), {}, {}, {}};
      for (Tensor StateSlice::*member :
           {&StateSlice::weight, &StateSlice::first_moment, &StateSlice::second_moment}) {
        storage_.emplace_back(tensor.shape, DType::f32);
        slice.*member = storage_.back().view;
      }
      wanted_.push_back(slice);
    }
  }

  fs::path root() const { return run_.output() / "checkpoints"; }
  fs::path damaged_step() const { return root() / checkpoint_name(2); }
  const std::vector<fs::path>& files() const { return files_; }
  /// The step that a run would go on from; reads and checks every byte.
  int64_t resumed_step() {
    const auto found = resume_newest(*alone_, root(), wanted_);
    return found ? found->step : 0;
  }

 private:
  TinyRun run_;
  std::vector<fs::path> files_;
  std::unique_ptr<Communicator> alone_ = make_self_communicator();
  std::vector<OwnedTensor> storage_;
  std::vector<StateSlice> wanted_;
};

/// Writes the damaged bytes of a file, looks what a resume makes of it, and puts the whole ones back.
void judge(Specimen& specimen, const fs::path& file, const std::string& whole, const std::string& damaged,
           const std::string& what, Tally& tally) {
  put(specimen.damaged_step() / file, damaged);
  ++tally.injected;
  int64_t step = 0;
  const std::string said = stderr_during([&] {
    try {
      step = specimen.resumed_step();
    } catch (const std::exception& error) {
      tally.expect(false, fmt::format("{} of {}: {}", what, file.string(), error.what()));
    }
  });
  tally.recovered += step == 1;
  tally.bad_accepted += step == 2;
  tally.expect(step == 1, fmt::format("{} of {}: a resume takes step {}", what, file.string(), step));
  tally.expect(said.find((specimen.damaged_step() / file).string()) != std::string::npos,
               fmt::format("{} of {}: the file is not named: {}", what, file.string(), said));
  put(specimen.damaged_step() / file, whole);
}

}  // namespace

Tally damaged_files(int flips, int bursts) {
  Tally tally{.part = "damaged files"};
  Specimen specimen;
  tally.expect(specimen.resumed_step() == 2, "the undamaged checkpoint is not taken");
  std::vector<std::string> whole;
  for (const fs::path& file : specimen.files()) whole.push_back(text_of(specimen.damaged_step() / file));

  // 1. Every file is cut at 20 places, its begin and its last byte among them.
  int cuts = 0;
  for (size_t f = 0; f < whole.size(); ++f) {
    const auto bytes = static_cast<int64_t>(whole[f].size());
    std::set<int64_t> lengths;
    for (int64_t cut = 0; cut < cuts_per_file; ++cut) lengths.insert((bytes - 1) * cut / (cuts_per_file - 1));
    for (const int64_t length : lengths) {
      judge(specimen, specimen.files()[f], whole[f], whole[f].substr(0, static_cast<size_t>(length)),
            fmt::format("the first {} of {} bytes", length, bytes), tally);
      ++cuts;
    }
  }

  // 2. Bits and bursts: every file in turns, so that small ones get as many as large ones.
  const Rng rng(1000, 200);
  uint64_t draw = 0;
  for (int i = 0; i < flips + bursts; ++i) {
    const size_t f = static_cast<size_t>(i) % whole.size();
    const uint64_t bytes = whole[f].size();
    const uint64_t at = rng.below(draw++, bytes);
    std::string damaged = whole[f];
    if (i < flips) {
      const uint64_t bit = rng.below(draw++, 8);
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      judge(specimen, specimen.files()[f], whole[f], damaged, fmt::format("bit {} of byte {}", bit, at),
            tally);
    } else {
      const uint64_t length = std::min(2 + rng.below(draw++, most_burst_bytes), bytes - at);
      for (uint64_t k = 0; k < length; ++k) {
        damaged[at + k] = static_cast<char>(damaged[at + k] ^ static_cast<char>(1 + rng.below(draw++, 255)));
      }
      judge(specimen, specimen.files()[f], whole[f], damaged, fmt::format("{} bytes from {}", length, at),
            tally);
    }
  }
  tally.notes.push_back(fmt::format("{} files: {} cuts, {} flipped bits, {} bursts of up to {} bytes",
                                    whole.size(), cuts, flips, bursts, most_burst_bytes + 1));
  tally.expect(specimen.resumed_step() == 2, "the checkpoint, whole again, is not taken");
  return tally;
}

}  // namespace ptrain::faults
