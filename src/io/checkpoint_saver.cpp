#include "src/io/checkpoint_saver.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "kernels/base/clock.h"
#include "kernels/base/error.h"
#include "parallel/comm/host_objects.h"

namespace ptrain {
namespace {

// How long finish() works before it asks how the other ranks are: one that has failed ends the work of all.
constexpr double close_patience_s = 0.5;

/// Leaves the cores to training, which on a CPU has all of them: a tenth of a thread's usual share, so that a
/// save does not starve, and never at once when it is woken, since it is training that wakes it.
void step_back() {
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 10);
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_BATCH, &none);
}

}  // namespace

SaveProgress over_ranks(Communicator& world, const SaveProgress& mine) {
  std::array<int64_t, 2> words = {mine.busy, mine.failed};
  world.all_reduce(Tensor(words.data(), {std::ssize(words)}, DType::i64));
  return {.busy = words[0], .failed = words[1]};
}

CheckpointSaver::CheckpointSaver(Communicator& world, const SavePart& part) : world_(world), part_(part) {}

CheckpointSaver::~CheckpointSaver() {
  is_over_ = true;
  wake_.release();
  if (thread_.joinable()) thread_.join();
}

// ---- The thread
// --------------------------------------------------------------------------------------------

void CheckpointSaver::work() {
  step_back();
  while (true) {
    wake_.acquire();
    while (!is_over_ && !is_driven_) {
      const std::lock_guard lock(item_);
      if (!is_open_) break;
      do_item();
    }
    if (is_over_) return;
  }
}

void CheckpointSaver::do_item() {
  try {
    if (work_->advance()) return;
  } catch (const Error& error) {
    error_ = error;
  } catch (const std::exception& error) {
    error_ = Error(ExitCode::resources, error.what(), std::source_location::current());
  }
  const bool has_failed = error_.has_value();
  is_open_ = false;
  if (has_failed)
    has_failed_ = true;
  else
    ++finished_;
}

// ---- The caller
// --------------------------------------------------------------------------------------------

void CheckpointSaver::begin(SaveRequest request, std::span<const StateSlice> slices) {
  check(is_idle(), "a save is begun while one is under way");
  begin_s_ = now_s();
  outcome_.reset();
  work_ = std::make_unique<SaveWork>(part_, world_.rank(), std::move(request), slices);
  if (part_bytes_ == 0) {
    part_bytes_ = work_->bytes();
    part_.group.all_reduce(Tensor(&part_bytes_, {1}, DType::i64));
  }
  work_->set_part_bytes(part_bytes_);
  enter_first(SavePhase::prepare);
}

void CheckpointSaver::save(SaveRequest request, std::span<const StateSlice> slices) {
  is_driven_ = true;
  begin(std::move(request), slices);
  finish();
}

void CheckpointSaver::enter_first(SavePhase phase) {
  entered_ = 0;
  finished_ = 0;
  has_failed_ = false;
  error_.reset();
  enter(phase);
}

void CheckpointSaver::enter(SavePhase phase) {
  phase_ = phase;
  ++entered_;
  work_->enter(phase);
  is_open_ = true;
  if (is_driven_) return;
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  wake_.release();
}

SaveProgress CheckpointSaver::progress() const {
  return {.busy = finished_ < entered_, .failed = has_failed_};
}

void CheckpointSaver::advance(const SaveProgress& all) {
  if (is_idle()) return;
  if (all.failed > 0) return fail_together();
  if (all.busy > 0) return;
  switch (phase_) {
    case SavePhase::prepare:
      return enter(SavePhase::write);
    case SavePhase::write:
      work_->set_shares(gather_text(part_.group, work_->share(), 0));
      return enter(SavePhase::commit);
    case SavePhase::commit:
      return enter(SavePhase::clean);
    case SavePhase::clean:
    case SavePhase::discard:
      return end();
    case SavePhase::none:
      break;
  }
}

/// All ranks stop, learn why, and the leader deletes what there is.
void CheckpointSaver::fail_together() {
  const bool was_driven = is_driven_.exchange(true);
  {
    const std::lock_guard lock(item_);
    is_open_ = false;
  }
  is_driven_ = was_driven;
  try {
    agree(world_, error_);
  } catch (const AgreedError& error) {
    if (error.code() != ExitCode::resources && error.code() != ExitCode::input) throw;
    failure_ = error;
  }
  enter_first(SavePhase::discard);
}

void CheckpointSaver::end() {
  outcome_ = SaveOutcome{.step = work_->request().step,
                         .path = work_->path(),
                         .error = std::exchange(failure_, std::nullopt),
                         .seconds = now_s() - begin_s_};
  work_.reset();
  phase_ = SavePhase::none;
}

void CheckpointSaver::finish() {
  is_driven_ = true;
  while (!is_idle()) {
    {
      // The thread lets go after the item that it is at.
      const std::lock_guard lock(item_);
      for (const double begin_s = now_s(); is_open_ && now_s() - begin_s < close_patience_s;) do_item();
    }
    advance(over_ranks(world_, progress()));
  }
  is_driven_ = false;
}

std::optional<SaveOutcome> CheckpointSaver::take_outcome() {
  return std::exchange(outcome_, std::nullopt);
}

std::filesystem::path save_checkpoint(Communicator& world, const SaveRequest& request,
                                      std::span<const StateSlice> slices) {
  return save_checkpoint(world, {.group = world}, request, slices);
}

std::filesystem::path save_checkpoint(Communicator& world, const SavePart& part, const SaveRequest& request,
                                      std::span<const StateSlice> slices) {
  CheckpointSaver saver(world, part);
  saver.save(request, slices);
  const std::optional<SaveOutcome> outcome = saver.take_outcome();
  if (outcome->error) throw AgreedError(*outcome->error);
  return outcome->path;
}

}  // namespace ptrain
