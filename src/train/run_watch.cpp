#include "src/train/run_watch.h"

#include <cstdlib>

#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/store.h"

namespace ptrain {
namespace {

Json to_json(const HangReport::Line& line) {
  return {{"rank", line.rank},
          {"host", line.host},
          {"place", line.place},
          {"doing", line.doing},
          {"is_culprit", line.is_culprit},
          {"waits_for", line.waits_for},
          {"silent_s", line.silent_s},
          {"stalled_s", line.stalled_s},
          {"before", line.before}};
}

/// stderr first: the disk may be what hangs.
void publish(const HangReport& report, const std::filesystem::path& output) {
  log::write(log::Level::error, fmt::format("{}\n  What every rank did lies in {}.", report.reason,
                                            (output / "failure.json").string()));
  try {
    write_text(output / "failure.json", failure_text(report));
  } catch (const Error& error) {
    log::write(log::Level::error, error.what());
  }
}

/// The main thread hangs: nothing can be unwound.
void leave(const std::string& why) {
  if (!why.empty()) log::write(log::Level::error, "hang: " + why);
  std::_Exit(static_cast<int>(ExitCode::hang));
}

}  // namespace

std::string failure_text(const HangReport& report) {
  Json ranks = Json::array();
  for (const HangReport::Line& line : report.ranks) ranks.push_back(to_json(line));
  const Json failure = {{"rank", report.rank},     {"host", report.host},
                        {"phase", report.phase},   {"step", report.step},
                        {"reason", report.reason}, {"exit_code", static_cast<int>(ExitCode::hang)},
                        {"ranks", ranks}};
  return failure.dump(2) + "\n";
}

RunWatch::RunWatch(Communicator& world) : world_(world) {
  world_.set_op_ring(&ring_);
}

RunWatch::~RunWatch() {
  watchdog_.reset();
  world_.set_op_ring(nullptr);
}

void RunWatch::start(const LoadedConfig& loaded, std::span<const std::string> hosts) {
  const double timeout_s = loaded.config.train.hang_timeout_s;
  if (timeout_s == 0) return;
  const std::filesystem::path output = loaded.config.output;
  const WatchEvents events{.publish = [output](const HangReport& report) { publish(report, output); },
                           .leave = leave};
  watchdog_ = std::make_unique<Watchdog>(
      world_, std::vector<std::string>(hosts.begin(), hosts.end()), ring_,
      WatchdogOptions{.timeout_s = timeout_s, .events = events, .ring_address = shared_.address()});
  const std::string fault = watchdog_->fault();
  if (fault.empty()) return;
  watchdog_.reset();
  const std::string text =
      fmt::format("{}: {}: no watch over hangs", loaded.where("train.hang_timeout_s"), fault);
  agreed(world_, [&] {
    check(!loaded.is_set("train.hang_timeout_s"), ExitCode::resources,
          "{}; let TCP pass between the hosts, or set it to 0", text);
  });
  if (world_.rank() == 0) log::warn("{}", text);
}

void RunWatch::finish() {
  world_.barrier();
}

void RunWatch::set_peers(const Trainer& trainer) {
  const auto weight = static_cast<double>(trainer.model().layout().elements);
  if (watchdog_ != nullptr) watchdog_->set_peers(trainer.coordinate().pipeline, std::max(weight, 1.0));
}

void RunWatch::end_step(const StepResult& result) {
  if (watchdog_ == nullptr) return;
  watchdog_->note_step(result.step_s * (1 - result.exposed_communication));
  for (const SlowRank& slow : watchdog_->new_slow_ranks()) {
    log::warn(
        "rank {} on {} is slow: {:.1f} times as long as its peers, {:.3g} s of computing a step instead "
        "of {:.3g} s; everybody waits for it: look at the clock, the load and the cooling of its host",
        slow.rank, watchdog_->host_of(slow.rank), slow.factor, slow.median_s, slow.peers_s);
  }
}

}  // namespace ptrain
