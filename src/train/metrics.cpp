#include "src/train/metrics.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/base/runtime.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

/// JSON has no word for a number that is none: null.
Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

double tokens_per_s(const StepResult& result) {
  return result.step_s > 0 ? static_cast<double>(result.tokens) / result.step_s : 0;
}

std::string norm_text(double norm) {
  return norm < 1e6 ? fmt::format("{:.3f}", norm) : fmt::format("{:.3e}", norm);
}

std::string memory_text(int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib >= 1024 ? fmt::format("{:.2f} GiB", mib / 1024) : fmt::format("{:.0f} MiB", mib);
}

std::string_view reason_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::updated:
      break;
    case Outcome::no_supervision:
      return "no supervised token";
    case Outcome::scale_overflow:
      return "the loss scale was too large";
    case Outcome::not_finite:
      return "not finite";
    case Outcome::passed_over:
      return "its rows are passed over";
  }
  return "";
}

}  // namespace

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

void check_finite(const StepResult& result) {
  check(result.outcome != Outcome::not_finite, ExitCode::numerical,
        "step {}: loss {}, gradient norm {}: not finite, the weights are as before this step; look at the "
        "data of this step, or lower optimizer.learning_rate",
        result.step, result.loss, result.grad_norm);
}

std::optional<double> model_flops_utilisation(const StepResult& result, const RunProgress& progress) {
  if (!progress.peak_flops) return std::nullopt;
  return tokens_per_s(result) * progress.flops_per_token / *progress.peak_flops;
}

int64_t peak_memory_bytes(Communicator& world, Device device) {
  int64_t bytes = 0;
  if (device.kind == DeviceKind::cuda) {
    const runtime::DeviceInfo info = runtime::device_info(device.index);
    bytes = info.total_bytes - info.free_bytes;
  } else {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    bytes = int64_t{usage.ru_maxrss} * 1024;
  }
  world.all_reduce(Tensor(&bytes, {1}, DType::i64), Reduce::max);
  return bytes;
}

double mean_over(Communicator& world, double value) {
  world.all_reduce(Tensor(&value, {1}, DType::f64));
  return value / world.size();
}

Json metrics_row(const StepResult& result, const RunProgress& progress, double time) {
  const auto mfu = model_flops_utilisation(result, progress);
  const double padded = static_cast<double>(result.padded_tokens);
  return Json{
      {"step", result.step},
      {"loss", number(result.loss)},
      {"grad_norm", number(result.grad_norm)},
      {"lr", result.learning_rate},
      {"supervised_tokens", result.supervised_tokens},
      {"tokens", result.tokens},
      {"pad_fraction", padded > 0 ? 1 - static_cast<double>(result.tokens) / padded : 0.0},
      {"tokens_per_s", tokens_per_s(result)},
      {"step_s", result.step_s},
      {"mfu", mfu ? Json(*mfu) : Json(nullptr)},
      {"peak_memory_bytes", progress.peak_memory_bytes},
      {"skipped_steps", progress.skipped_steps},
      {"checkpoint_stall_s", progress.checkpoint_stall_s},
      {"exposed_communication",
       std::isfinite(result.exposed_communication) ? Json(result.exposed_communication) : Json(nullptr)},
      {"time", time}};
}

std::string step_line(const StepResult& result, const RunProgress& progress) {
  const auto mfu = model_flops_utilisation(result, progress);
  std::string line =
      fmt::format("step {}/{}  loss {:.4f}  norm {}  lr {:.2e}  {:.0f} tokens/s", result.step, progress.steps,
                  result.loss, norm_text(result.grad_norm), result.learning_rate, tokens_per_s(result));
  if (mfu) line += fmt::format("  mfu {:.1f} %", *mfu * 100);
  line += fmt::format("  {}  left {}", memory_text(progress.peak_memory_bytes),
                      clock_text(progress.seconds_left));
  if (result.is_skipped()) line += fmt::format("  skipped: {}", reason_of(result.outcome));
  return line;
}

std::string summary_line(const StepResult& last, const RunProgress& progress) {
  const double mean =
      progress.losses > 0 ? progress.loss_sum / static_cast<double>(progress.losses) : last.loss;
  return fmt::format(
      "steps {} to {}: loss {:.4f} in the last step, {:.4f} in the mean of all {}; {} tokens in {}, {:.0f} "
      "tokens/s",
      progress.first_step, last.step, last.loss, mean, progress.losses, progress.tokens,
      clock_text(progress.seconds),
      progress.seconds > 0 ? static_cast<double>(progress.tokens) / progress.seconds : 0.0);
}

std::string live_line(const StepResult& result, const RunProgress& progress, int columns) {
  const auto mfu = model_flops_utilisation(result, progress);
  std::vector<std::string> parts = {fmt::format("{}/{}", result.step, progress.steps),
                                    fmt::format("loss {:.4f}", result.loss),
                                    fmt::format("left {}", clock_text(progress.seconds_left)),
                                    fmt::format("{:.0f} tokens/s", tokens_per_s(result))};
  if (mfu) parts.push_back(fmt::format("mfu {:.1f} %", *mfu * 100));
  const int room = columns >= 60 ? std::min(columns / 4, 30) : 0;  // of the bar: the same for every step
  const auto full = static_cast<size_t>(progress.steps > 0 ? room * result.step / progress.steps : room);
  std::string text;
  if (room > 0)
    text = fmt::format("[{}{}]", std::string(full, '#'), std::string(static_cast<size_t>(room) - full, '.'));
  for (const std::string& part : parts)
    if (std::ssize(text) + std::ssize(part) + 2 <= columns) text += (text.empty() ? "" : "  ") + part;
  return text;
}

}  // namespace ptrain
