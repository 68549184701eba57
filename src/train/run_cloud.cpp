#include "src/train/run_cloud.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <sstream>
#include <thread>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/file.h"
#include "src/io/find.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds meeting{100};  // between looks of all ranks at who is done
constexpr int64_t spare_checkpoints = 2;           // that wait for S3, beyond checkpoint.keep
constexpr double message_s = 30;
constexpr const char* note_name = "uploaded.json";  // what was all there when a run was done

bool names_s3(const Config& config) {
  const auto is_remote = [](const std::string& path) { return is_s3(path); };
  return config.checkpoint.upload || is_s3(config.model.path) ||
         std::ranges::any_of(config.data.train, is_remote) ||
         std::ranges::any_of(config.data.validation, is_remote);
}

/// Collective: until `is_done` on all ranks. They meet now and then and sleep between: a wait of hours is no
/// hang, and costs no core.
void wait_together(Communicator& world, const std::function<bool()>& is_done) {
  while (true) {
    int64_t open = is_done() ? 0 : 1;
    world.all_reduce(Tensor(&open, {1}, DType::i64), Reduce::max);
    if (open == 0) return;
    std::this_thread::sleep_for(meeting);
  }
}

/// Collective: `work`, which must not communicate, on a thread of its own, and only where `is_mine`. Errors
/// are agreed on.
void agreed_aside(Communicator& world, bool is_mine, const std::function<void(std::stop_token)>& work) {
  std::optional<Error> error;
  std::exception_ptr other;  // a defect, or no memory
  std::atomic<bool> is_done = !is_mine;
  std::jthread thread;
  if (is_mine) {
    thread = std::jthread([&](std::stop_token stop) {
      try {
        work(std::move(stop));
      } catch (const Error& caught) {
        error = caught;
      } catch (...) {
        other = std::current_exception();
      }
      is_done = true;
    });
  }
  wait_together(world, [&] { return is_done.load(); });
  if (thread.joinable()) thread.join();
  if (other) std::rethrow_exception(other);
  agree(world, error);
}

}  // namespace

void RunCloud::open(const LoadedConfig& loaded, const fs::path& output, const Storage& storage,
                    std::string_view search_path) {
  const Config& config = loaded.config;
  output_ = output;
  disk_ = storage.disk();
  disks_ = storage.disks().count();
  if (!names_s3(config)) return;
  is_keeper_ = storage.is_first_of_disk();
  agreed(world_, [&] {
    const std::string_view key = config.checkpoint.upload   ? "checkpoint.upload"
                                 : is_s3(config.model.path) ? "model.path"
                                                            : "data.train";
    if (config.checkpoint.upload)
      place_ = s3_place(*config.checkpoint.upload, loaded.where("checkpoint.upload"));
    if (!is_keeper_) return;
    s3_.emplace(find_s3_tool(search_path, loaded.where(key)),
                S3Limits{.upload_bytes_per_s = config.checkpoint.upload_bytes_per_s});
    if (world_.rank() == 0) log::info("S3: by {}", s3_->tool().path);
    if (!is_uploading()) return;
    const int64_t keep = config.checkpoint.keep;
    uploader_ = std::make_unique<Uploader>(
        *s3_, UploaderOptions{.place = place_, .most_local = keep + spare_checkpoints});
  });
}

Config RunCloud::fetch_inputs(const Config& config) {
  Config local = config;
  if (!names_s3(config)) return local;
  const fs::path inputs = output_ / "inputs";
  if (is_s3(config.model.path)) {
    const std::string place = s3_place(config.model.path, "model.path");
    const bool with_weights = config.model.init == Config::Init::pretrained;
    const fs::path directory = inputs / "model";
    if (world_.rank() == 0) log::info("{} comes to {}", place, directory.string());
    agreed_aside(world_, is_keeper_, [&](std::stop_token stop) {
      fetch_directory(
          *s3_, place, directory, [&](std::string_view name) { return is_model_file(name, with_weights); },
          stop);
    });
    local.model.path = directory.string();
  }
  for (auto [files, key] : {std::pair{&local.data.train, "train"}, {&local.data.validation, "validation"}}) {
    std::vector<std::string> places;
    for (size_t i = 0; i < files->size(); ++i) {
      const std::string& pattern = (*files)[i];
      if (!is_s3(pattern)) {
        places.push_back(pattern);
        continue;
      }
      const fs::path directory = inputs / fmt::format("{}-{}", key, i);
      if (world_.rank() == 0) log::info("{} comes to {}", pattern, directory.string());
      std::string names;
      agreed_aside(world_, is_keeper_, [&](std::stop_token stop) {
        for (const fs::path& path : fetch_files(*s3_, pattern, directory, stop))
          names += path.string() + "\n";
      });
      names = broadcast_text(world_, names, 0);  // the paths are the same on every disk
      for (size_t at = 0; at < names.size();) {
        const size_t end = names.find('\n', at);
        places.push_back(names.substr(at, end - at));
        at = end + 1;
      }
    }
    *files = std::move(places);
  }
  return local;
}

/// Rank 0 looks, and all know.
std::vector<RemoteCheckpoint> RunCloud::list(int64_t step_here) {
  std::string text;
  agreed_aside(world_, world_.rank() == 0, [&](std::stop_token stop) {
    try {
      for (const RemoteCheckpoint& found : list_checkpoints(*s3_, place_ + "/checkpoints", stop)) {
        if (found.step > step_here) text += fmt::format("{} {}\n", found.step, found.parts);
      }
    } catch (const Error& error) {
      if (step_here == 0) throw;  // to begin anew could write over what is there
      log::warn("what {} has is not known: {}", place_, error.what());
    }
  });
  std::istringstream lines(broadcast_text(world_, text, 0));
  std::vector<RemoteCheckpoint> checkpoints;
  for (RemoteCheckpoint next; lines >> next.step >> next.parts;) checkpoints.push_back(next);
  return checkpoints;
}

bool RunCloud::fetch_newer_checkpoint(int64_t step_here) {
  if (!is_uploading()) return false;
  std::string reason;
  for (const RemoteCheckpoint& next : list(step_here)) {
    try {
      agreed_aside(world_, is_keeper_, [&](std::stop_token stop) {
        for (int part = disk_; part < next.parts; part += disks_) {
          // A disk that gets several keeps the others as it would keep copies for other disks.
          const std::string name = part == disk_ ? checkpoint_name(next.step) : replica_name(next.step, part);
          fetch_part(*s3_, place_ + "/checkpoints", next, part, checkpoints() / name, stop);
        }
      });
      if (world_.rank() == 0)
        log::info("the checkpoint of step {} came from {} to {}", next.step, place_, checkpoints().string());
      return true;
    } catch (const AgreedError& error) {
      if (error.code() != ExitCode::input) throw;
      reason = error.what();
      if (world_.rank() == 0) log::warn("passed over: {}", reason);
    }
  }
  agreed(world_, [&] {
    check(
        reason.empty() || step_here > 0, ExitCode::no_checkpoint,
        "{} has checkpoints, but none is whole; the last reason: {}. Name another checkpoint.upload to begin "
        "anew",
        place_, reason);
  });
  return false;
}

void RunCloud::add_checkpoint(const fs::path& checkpoint) {
  if (!uploader_) return;
  uploader_->add(checkpoint, "checkpoints/" + remote_name(checkpoint.filename().string(), disk_, disks_),
                 manifest_name);
}

bool RunCloud::may_delete(const fs::path& checkpoint) {
  return !uploader_ || uploader_->may_delete(checkpoint);
}

std::string RunCloud::note(const fs::path& last_checkpoint) const {
  const Json json = {{"to", place_}, {"last_checkpoint", last_checkpoint.filename().string()}};
  return json.dump(2) + "\n";
}

void RunCloud::wait(std::string_view what) {
  const double begin_s = now_s();
  double next_message_s = 0.5;  // nothing is said of what is soon over
  wait_together(world_, [&] {
    if (!uploader_ || uploader_->is_idle()) return true;
    const double waited_s = now_s() - begin_s;
    if (world_.rank() == 0 && waited_s > next_message_s) {
      log::info("{}: waiting for the upload of {} to {}", what, uploader_->waiting(), place_);
      next_message_s += message_s;
    }
    return false;
  });
}

void RunCloud::finish(const fs::path& last_checkpoint, const fs::path& model) {
  if (!is_uploading()) return;
  if (world_.rank() == 0) uploader_->add(model, "model", "config.json");
  wait("done");
  if (uploader_) uploader_->try_again();
  wait("once more");
  agreed(world_, [&] {
    const auto failures = uploader_ ? uploader_->failures() : std::vector<std::string>{};
    check(failures.empty(), ExitCode::resources,
          "the training is done and all lies here, but not in {}: {}; run the same command again to upload "
          "what "
          "is missing",
          place_, failures.empty() ? "" : failures.front());
    if (world_.rank() == 0) write_text(output_ / note_name, note(last_checkpoint));
  });
  if (world_.rank() == 0) log::info("the checkpoints and the model are in {}", place_);
}

void RunCloud::finish_done(const fs::path& last_checkpoint, const fs::path& model) {
  if (!is_uploading()) return;
  int64_t is_there = 0;
  agreed(world_, [&] {
    if (world_.rank() != 0) return;
    const fs::path path = output_ / note_name;
    is_there = fs::exists(path) && read_text(path, 1 << 20) == note(last_checkpoint);
  });
  world_.broadcast(Tensor(&is_there, {1}, DType::i64), 0);
  if (is_there != 0) return;
  add_checkpoint(last_checkpoint);
  finish(last_checkpoint, model);
}

void RunCloud::finish_stopped() {
  if (!is_uploading()) return;
  wait("asked to stop");
  for (const std::string& failure : uploader_ ? uploader_->failures() : std::vector<std::string>{})
    log::warn("not in {}: {}", place_, failure);
}

}  // namespace ptrain
