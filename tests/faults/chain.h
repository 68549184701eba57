// One output directory taken from start to start by the same command until the run is through, faults on the
// way; each start is judged by what was whole before it, the end by the run that nothing happened to.
#pragma once

#include "tests/faults/job.h"
#include "tests/faults/tally.h"

namespace ptrain::faults {

struct Setup {
  std::string name;
  int ranks = 4;
  int64_t steps = 240;
  int64_t every = 12;
  std::vector<std::string> words;               // of every start
  std::vector<std::vector<std::string>> turns;  // further ones, the next for every start; may be empty
};

/// The golden case llama-gqa-tied, as the chain and its unbroken twin run it.
class Unbroken {
 public:
  explicit Unbroken(Setup setup);

  const Setup& setup() const { return setup_; }
  const std::vector<Row>& rows() const { return rows_; }
  const std::string& weights() const { return weights_; }
  double first_step_s() const { return first_step_s_; }  // from the start of the command
  double training_s() const { return training_s_; }      // from there to the last step

  /// That a run which is through has these rows and weights and left nothing half done behind.
  void expect_same(const TinyRun& run, Tally& tally) const;

  /// The command's words for a configuration.
  std::vector<std::string> words(const TinyRun& run, size_t start) const;

 private:
  Setup setup_;
  std::vector<Row> rows_;
  std::string weights_;  // all tensors of model/, by name
  double first_step_s_ = 0, training_s_ = 0;
};

class Chain {
 public:
  Chain(const Unbroken& unbroken, Tally& tally);

  const TinyRun& run() const { return run_; }
  std::filesystem::path checkpoints() const { return run_.output() / "checkpoints"; }
  /// Starts the command once, lets `inject` do what it will (true: it did something to the job) and waits for
  /// the end.
  ProgramResult start(const std::function<bool(Job&)>& inject = {},
                      const std::vector<std::string>& variables = {}, Job::Linger linger = Job::Linger::none);
  /// Starts the command and lets it save and leave (SIGUSR1) once it has done so many steps.
  ProgramResult run_to(int64_t step, const std::function<void(Job&)>& meanwhile = {});
  bool is_through() const { return is_through_; }
  /// The step that the last start went on from; 0: none, it began anew.
  int64_t resumed_from() const { return resumed_from_; }

 private:
  void judge_resume(const ProgramResult& result, double start_time);

  const Unbroken& unbroken_;
  Tally& tally_;
  TinyRun run_;
  size_t starts_ = 0;
  int pending_ = 0;  // faults that no start has gone on from yet
  Inventory before_;
  int64_t last_step_ = 0;  // logged before the start
  int64_t resumed_from_ = 0;
  bool is_through_ = false;
};

}  // namespace ptrain::faults
