// A run in its parts: what train_loop.h starts. Only for the files that define it: run_setup.cpp (up to the
// first step), run_storage.cpp (whose disk is whose), train_loop.cpp (the steps), run_save.cpp (checkpoints
// and the model), run_judge.cpp (what is wrong with steps, weights and starts), run_log.cpp (what is written
// down).
#pragma once

#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>

#include "kernels/base/clock.h"
#include "src/io/checkpoint_saver.h"
#include "src/io/hf_dir.h"
#include "src/io/json.h"
#include "src/io/part_writers.h"
#include "src/io/replica_copy.h"
#include "src/io/storage.h"
#include "src/train/base_model.h"
#include "src/train/crash_loop.h"
#include "src/train/judge.h"
#include "src/train/metrics.h"
#include "src/train/replica_check.h"
#include "src/train/resume.h"
#include "src/train/run_cloud.h"
#include "src/train/run_data.h"
#include "src/train/run_lock.h"
#include "src/train/run_watch.h"
#include "src/train/spike_watch.h"
#include "src/train/state_snapshot.h"
#include "src/train/step_vote.h"
#include "src/train/store.h"
#include "src/train/tensorboard.h"
#include "src/train/trace.h"
#include "src/train/train_loop.h"
#include "src/train/trainer.h"

namespace ptrain {

/// One run, from its first look at the configuration to the model on disk. Every member function is a
/// collective.
class Run {
 public:
  Run(const LoadedConfig& loaded, const RunEnvironment& environment)
      : loaded_(loaded),
        config_(loaded.config),
        environment_(environment),
        world_(environment.world),
        watch_(environment.world),
        output_(config_.output),
        cloud_(environment.world),
        judge_(config_.train.max_bad_steps),
        loss_watch_(config_.train.spike_threshold, 0.01),
        norm_watch_(config_.train.spike_threshold, 0.1) {}

  ExitCode go();
  /// Returns when all ranks are done: one that never comes is found.
  void finish() { watch_.finish(); }
  /// <output>/failure.json: who failed, where and why. Written by the rank that speaks, once the output is
  /// this run's.
  void note_failure(const Error& error) const;
  /// The start has ended by `error`: one of the user's does not count among those that brought nothing.
  void note_end(const Error& error);

 private:
  bool is_first() const { return world_.rank() == 0; }
  bool is_logged(int64_t step) const { return step % config_.log.every == 0 || step == steps_; }
  Tracer* tracer() { return trace_ ? &trace_->tracer() : nullptr; }
  void enter(std::string_view phase) {
    phase_ = phase;
    watch_.enter(phase);
  }
  void say(std::string_view line) const {
    if (is_first()) environment_.say(line);
  }

  void claim_output();
  void keep_log() const;
  void open_storage();
  void copy_to_next_disk(int64_t step);
  void finish_copy();
  void find_best_model();
  void read_model();
  uint64_t model_identity() const;
  void open_data();
  bool look_for_checkpoint();
  void build_trainer();
  void load_model();
  void resume();
  void go_on_after(int64_t step, const Json& run);
  void open_logs();
  bool train();
  StepResult take_step(int64_t step);
  std::string blame(const StepResult& result);
  bool goes_back(const StepResult& result);
  void leave_damaged_state(int64_t step);
  void go_back(std::string_view why);
  void go_back_to_files();
  void note_start();
  void watch_for_spikes(const StepResult& result);
  uint64_t imbalance_of_replicas();
  void name_replicas_that_differ();
  bool lacks_evaluation();
  void open_saver();
  /// What a failed save means: the next one may succeed, or there is none.
  enum class Saving { periodic, last };
  void save(int64_t step, Saving saving);
  void finish_save();
  void go_on_saving(const SaveProgress& all);
  void note_saved(Saving saving);
  SaveRequest save_request(int64_t step);
  StepVote vote(bool is_saving);
  void log(const StepResult& result);
  void evaluate(int64_t step);
  void keep_as_model();
  bool is_kept_as_model(int64_t step);
  void link_model();
  bool has_model();

  const LoadedConfig& loaded_;
  Config config_;  // loaded_.config, but what came from S3 with its place here
  const RunEnvironment& environment_;
  Communicator& world_;
  RunWatch watch_;  // outlives all that notes what it does
  std::filesystem::path output_;
  RunLock lock_;
  std::optional<Storage> storage_;
  std::optional<ReplicaCopy> replica_;  // on the first rank of each disk, with checkpoint.replicas
  RestartNotes restarts_;               // of the first rank, as the lock
  RunCloud cloud_;
  BaseModel base_;
  std::optional<Plan> plan_;
  std::optional<HfDir> weights_;   // where they are not drawn at random
  SmallFiles small_files_;         // of the model that is written, on the first rank of each disk
  DType file_dtype_ = DType::f32;  // of the safetensors that are written
  std::optional<TextEncoder> encoder_;
  RunData training_, validation_;
  std::optional<RunTrace> trace_;  // outlives the trainer, which notes into it
  std::optional<Trainer> trainer_;
  int64_t steps_ = 0;
  static constexpr int64_t any_step = std::numeric_limits<int64_t>::max() - 1;
  int64_t newest_step_ = any_step;  // of the newest whole checkpoint; any_step: there is none
  int64_t done_steps_ = 0;          // of an earlier start
  MetricsFile metrics_;
  TensorBoard tensorboard_;
  RunProgress progress_;
  StepResult last_result_;
  double mean_step_s_ = 0;
  Judge judge_;
  SpikeWatch loss_watch_, norm_watch_;  // of the norm its logarithm
  bool is_save_owed_ = false;           // one was due while the run was in doubt
  Json identity_;
  double best_loss_ = std::numeric_limits<double>::infinity();
  int64_t best_step_ = 0;
  std::optional<ReplicaCheck> replica_check_;
  std::optional<StateSnapshot> snapshot_;  // what is saved meanwhile, and what a run goes back to
  Json run_of_snapshot_;                   // see go_on_after()
  std::vector<HfTensor> saved_tensors_;    // what every checkpoint holds
  std::optional<MovedSlices> moved_;       // of the save under way
  std::optional<CheckpointSaver> saver_;   // behind what it reads, so that it ends before
  std::filesystem::path last_checkpoint_;
  std::string_view phase_ = "start";  // for failure.json, as the next
  int64_t step_ = 0;
  bool has_output_ = false;
};

}  // namespace ptrain
