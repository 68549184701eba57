#include "tests/faults/chain.h"

#include <map>

#include "src/io/hf_dir.h"

namespace ptrain::faults {
namespace {

namespace fs = std::filesystem;

/// All tensors by name: grids share them out to files in ways of their own.
std::string weights_of(const fs::path& model) {
  const HfDir directory = HfDir::open(model);
  std::map<std::string, std::string> bytes_of;
  for (const StoredTensor& tensor : directory.tensors()) {
    const OwnedTensor whole_tensor(tensor.shape, tensor.dtype);
    directory.read_box(tensor.name, whole(tensor.shape), whole_tensor.view);
    bytes_of[tensor.name].assign(static_cast<const char*>(whole_tensor.view.data),
                                 static_cast<size_t>(whole_tensor.view.bytes()));
  }
  std::string all;
  for (const auto& [name, bytes] : bytes_of) all += name + bytes;
  return all;
}

/// N of "goes on after step N from".
std::optional<int64_t> resumed_step(const std::string& err) {
  const std::string_view words = "goes on after step ";
  const size_t at = err.find(words);
  if (at == std::string::npos) return std::nullopt;
  return std::stoll(err.substr(at + words.size()));
}

}  // namespace

std::vector<std::string> Unbroken::words(const TinyRun& run, size_t start) const {
  std::vector<std::string> all = {run.config(), "--batch.global", "8", "--data.shuffle", "true",
                                  "--train.steps", std::to_string(setup_.steps), "--checkpoint.every",
                                  std::to_string(setup_.every),
                                  // Killed as often as it is here, a start may well bring nothing.
                                  "--train.max_fruitless_starts", "0"};
  all = joined(all, setup_.words);
  return setup_.turns.empty() ? all : joined(all, setup_.turns[start % setup_.turns.size()]);
}

Unbroken::Unbroken(Setup setup) : setup_(std::move(setup)) {
  const TinyRun run;
  Job job(setup_.ranks, words(run, 0));
  const ProgramResult result = job.wait();
  check(result.code == 0, "{}: the unbroken run ended with {}: {}", setup_.name, result.code, result.err);
  rows_ = rows_of(run.output());
  check(static_cast<int64_t>(rows_.size()) == setup_.steps, "{}: the unbroken run has {} rows", setup_.name,
        rows_.size());
  weights_ = weights_of(run.output() / "model");
  first_step_s_ = rows_.front().time - job.start_time();
  training_s_ = rows_.back().time - rows_.front().time;
}

void Unbroken::expect_same(const TinyRun& run, Tally& tally) const {
  const std::string& name = setup_.name;
  const std::vector<Row> rows = rows_of(run.output());
  tally.expect(rows.size() == rows_.size(),
               fmt::format("{}: {} rows, unbroken {}", name, rows.size(), rows_.size()));
  for (size_t i = 0; i < std::min(rows.size(), rows_.size()); ++i) {
    if (rows[i].numbers == rows_[i].numbers) continue;
    tally.expect(false, fmt::format("{}: a row is not the unbroken run's: {} instead of {}", name,
                                    rows[i].numbers, rows_[i].numbers));
    return;
  }
  tally.expect(fs::exists(run.output() / "model") && weights_of(run.output() / "model") == weights_,
               name + ": the model is not that of the unbroken run");
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run.output() / "checkpoints", error)) {
    tally.expect(entry.path().filename().string().starts_with("step-"),
                 fmt::format("{}: {} is left behind", name, entry.path().filename().string()));
  }
}

Chain::Chain(const Unbroken& unbroken, Tally& tally) : unbroken_(unbroken), tally_(tally) {}

ProgramResult Chain::start(const std::function<bool(Job&)>& inject, const std::vector<std::string>& variables,
                           Job::Linger linger) {
  before_ = take_inventory(checkpoints());
  const std::vector<Row> rows = rows_of(run_.output());
  last_step_ = rows.empty() ? 0 : rows.back().step;
  Job job(unbroken_.setup().ranks, unbroken_.words(run_, starts_++), variables, linger);
  const bool is_injected = inject && inject(job);
  const ProgramResult result = job.wait();
  judge_resume(result, job.start_time());
  if (result.code == 0) {  // a fault that came when all was done counts as none
    is_through_ = true;
    unbroken_.expect_same(run_, tally_);
    tally_.recovered += std::exchange(pending_, 0);  // where nothing was left to train
  } else {
    tally_.injected += is_injected;
    pending_ += is_injected;
    tally_.expect(is_injected, fmt::format("a start ended with {}: {}", result.code, result.err));
  }
  return result;
}

ProgramResult Chain::run_to(int64_t step, const std::function<void(Job&)>& meanwhile) {
  const auto inject = [&](Job& job) {
    wait_until([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (meanwhile) meanwhile(job);
      const std::vector<Row> rows = rows_of(run_.output());
      return (!rows.empty() && rows.back().time > job.start_time() && rows.back().step >= step) ||
             job.has_ended();
    });
    return !job.has_ended() && ::kill(job.mpirun(), SIGUSR1) == 0;
  };
  const ProgramResult result = start(inject);
  if (!is_through_)
    tally_.expect(result.code == 75, fmt::format("told to stop it ended with {}", result.code));
  return result;
}

void Chain::judge_resume(const ProgramResult& result, double start_time) {
  const std::string& name = unbroken_.setup().name;
  for (const std::string& damage : before_.damaged)
    tally_.expect(false, fmt::format("{}: a checkpoint in sight is not whole: {}", name, damage));
  const std::vector<Row> rows = rows_of(run_.output());
  const std::optional<int64_t> resumed = resumed_step(result.err);
  const bool has_trained = !rows.empty() && rows.back().time > start_time;
  if (!resumed && !has_trained) return;  // it was over before it could say
  resumed_from_ = resumed.value_or(0);
  if (resumed_from_ != before_.newest.value_or(0)) {
    ++tally_.bad_accepted;
    tally_.expect(false, fmt::format("{}: went on after step {}, the newest whole checkpoint was of step {}",
                                     name, resumed_from_, before_.newest.value_or(0)));
  }
  if (pending_ > 0) {
    // At most one interval before what was done, or before the save that the fault interrupted.
    const int64_t reached = std::min(last_step_, before_.in_the_making.value_or(last_step_));
    tally_.expect(
        reached - resumed_from_ <= unbroken_.setup().every,
        fmt::format("{}: went on after step {}, although {} steps were done and the save of step {} was "
                    "under way: more than an interval is lost",
                    name, resumed_from_, last_step_, before_.in_the_making.value_or(0)));
    tally_.lost_steps.push_back(last_step_ - resumed_from_);
  }
  tally_.recovered += std::exchange(pending_, 0);
  for (const Row& row : rows) {
    if (row.time <= start_time) continue;
    tally_.expect(row.step == resumed_from_ + 1,
                  fmt::format("{}: the first step after {} is {}", name, resumed_from_, row.step));
    if (starts_ > 1) tally_.recovery_s.push_back(row.time - start_time);
    break;
  }
}

}  // namespace ptrain::faults
