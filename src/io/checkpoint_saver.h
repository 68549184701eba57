// Saving checkpoints while training goes on, or at once. One save at a time, in phases:
//
//   prepare  the part's leader makes .tmp-step-N with its small files, all files in their final length
//   write    every rank writes its slices and brings them to the disk
//   commit   the leader collects what lies where, writes MANIFEST.json, renames .tmp-step-N to step-N
//   clean    the leader deletes older ones
//   discard  in the place of what is left, where a rank has failed: the leader deletes .tmp-step-N
//
// A thread of each rank does the file work and never communicates. The caller tells the saver at each step's
// end how far all ranks are; a phase begins when all ranks have finished the one before. What is written and
// in which order is save_work.h's.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <span>
#include <thread>

#include "parallel/comm/agree.h"
#include "parallel/comm/communicator.h"
#include "src/io/checkpoint.h"
#include "src/io/save_work.h"

namespace ptrain {

/// How far a save is, as ranks tell each other: 0 or 1 of a rank, numbers of ranks over all.
struct SaveProgress {
  int64_t busy = 0;  // still at the phase
  int64_t failed = 0;
};

/// A collective: the sum over all ranks.
SaveProgress over_ranks(Communicator& world, const SaveProgress& mine);

/// How a save ended, the same on every rank but for the error's speaker.
struct SaveOutcome {
  int64_t step = 0;
  std::filesystem::path path;
  std::optional<AgreedError> error;  // nothing was committed, the older ones are as they were
  double seconds = 0;                // from begin() on
};

class CheckpointSaver {
 public:
  /// `part.group` is `world` or a part of it; both outlive the saver.
  CheckpointSaver(Communicator& world, const SavePart& part);
  /// Leaves a save under way as it is, never to be taken for a checkpoint.
  ~CheckpointSaver();

  /// No save is under way; the outcome of the last one waits to be taken.
  bool is_idle() const { return phase_ == SavePhase::none; }

  /// Collective: sets a save out. What the slices' tensors hold must stay as it is until the save is over.
  /// One must not be under way. Weights go to safetensors rounded to their dtype there; where that is
  /// narrower than f32 they are also kept in state/.
  void begin(SaveRequest request, std::span<const StateSlice> slices);
  /// Collective: the same at once, on the calling thread alone.
  void save(SaveRequest request, std::span<const StateSlice> slices);
  /// How far this rank is. Never waits.
  SaveProgress progress() const;
  /// Collective: goes on to the next phase where all ranks are ready for it. `all`: progress() over all
  /// ranks.
  void advance(const SaveProgress& all);
  /// Collective: drives the save under way to its end. The calling thread takes the file work over.
  void finish();
  /// How the last save ended, once. A failure that is not the storage's (ExitCode::resources or input) is
  /// thrown by advance() and finish() instead.
  std::optional<SaveOutcome> take_outcome();

 private:
  void enter(SavePhase phase);
  void enter_first(SavePhase phase);
  void fail_together();
  void end();
  void do_item();
  void work();

  Communicator& world_;
  SavePart part_;
  SavePhase phase_ = SavePhase::none;
  int64_t entered_ = 0;     // phases of this save
  int64_t part_bytes_ = 0;  // that all ranks of the part write; as of the first save, since a run's are alike
  double begin_s_ = 0;
  std::optional<AgreedError> failure_;  // while its remains are deleted
  std::optional<SaveOutcome> outcome_;

  // While is_open_, work_ and error_ are whose who holds item_; otherwise the caller's alone. The caller
  // opens a phase without the lock: a thread so low may be put off while it holds it, and training would
  // wait.
  std::mutex item_;
  std::counting_semaphore<> wake_{0};
  std::unique_ptr<SaveWork> work_;
  std::optional<Error> error_;
  std::atomic<bool> is_open_ = false;  // the phase has items left
  // Said last of all by who did a phase's last item.
  std::atomic<int64_t> finished_ = 0;
  std::atomic<bool> has_failed_ = false;
  std::atomic<bool> is_driven_ = false;  // the caller does the items: the thread keeps away
  std::atomic<bool> is_over_ = false;
  std::thread thread_;
};

/// Collective: saves at once and returns the checkpoint's directory when it is whole and on the disk and
/// older ones are deleted. Errors, agreed on by all ranks: ExitCode::resources (disk full, …): the older
/// checkpoints are untouched.
std::filesystem::path save_checkpoint(Communicator& world, const SaveRequest& request,
                                      std::span<const StateSlice> slices);
/// The same of a part, on this rank's disk.
std::filesystem::path save_checkpoint(Communicator& world, const SavePart& part, const SaveRequest& request,
                                      std::span<const StateSlice> slices);

}  // namespace ptrain
