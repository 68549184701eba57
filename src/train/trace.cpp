#include "src/train/trace.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/base/log.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/host_objects.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr int phase_lane = 0, compute_lane = 1;

/// Lanes of what may be under way several times at once.
struct Lanes {
  int first = 0;
  const char* name = "";
};
Lanes lanes_of(SpanCategory category) {
  switch (category) {
    case SpanCategory::transfer:
      return {100, "messages"};
    case SpanCategory::tensor:
      return {300, "tensor collectives"};
    default:
      return {200, "collectives"};
  }
}

int64_t ns_of(double seconds) {
  return std::llround(1e9 * seconds);
}

std::string microseconds(int64_t ns) {
  return fmt::format("{:.3f}", static_cast<double>(ns) / 1e3);
}

/// {"step":7,"micro":3}
std::string arguments_of(const Span& span) {
  std::string text = fmt::format(R"({{"step":{})", span.step);
  const std::pair<const char*, int> numbers[] = {
      {"chunk", span.chunk}, {"micro", span.micro}, {"bucket", span.bucket}, {"peer", span.peer}};
  for (const auto& [name, number] : numbers) {
    if (number >= 0) text += fmt::format(R"(,"{}":{})", name, number);
  }
  return text;  // still open
}

}  // namespace

// --- Text --------------------------------------------------------------------------------------------------

TraceText::TraceText(TraceSeat seat, SpanTimes times) : seat_(std::move(seat)), times_(times) {}

void TraceText::add(std::string line) {
  if (!text_.empty()) text_ += ",\n";
  text_ += line;
}

/// A lane's name and its place among the lanes of the rank.
void TraceText::add_name(int lane, const std::string& name) {
  const std::string full = times_ == SpanTimes::happened ? name : name + " (enqueued)";
  add(fmt::format(R"({{"name":"thread_name","ph":"M","pid":{},"tid":{},"args":{{"name":"{}"}}}})", seat_.rank,
                  lane, full));
  add(fmt::format(R"({{"name":"thread_sort_index","ph":"M","pid":{},"tid":{},"args":{{"sort_index":{}}}}})",
                  seat_.rank, lane, lane));
}

/// Bars of one lane must not overlap: of what is under way the first lane that is free.
int TraceText::lane_of(const Span& span, int64_t begin_ns, int64_t end_ns) {
  if (span.category == SpanCategory::phase) return phase_lane;
  if (span.category == SpanCategory::compute) return compute_lane;
  const Lanes lanes = lanes_of(span.category);
  std::vector<int64_t>& ends_ns = ends_ns_[static_cast<size_t>(span.category)];
  auto free = std::ranges::find_if(ends_ns, [&](int64_t end) { return end <= begin_ns; });
  const auto index = static_cast<int>(free - ends_ns.begin());
  const int lane = lanes.first + index;
  if (free == ends_ns.end()) {
    ends_ns.push_back(end_ns);
    add_name(lane, fmt::format("{} under way, {}", lanes.name, index + 1));
  } else {
    *free = end_ns;
  }
  return lane;
}

std::string TraceText::events(std::span<const Span> spans, double shift_s, double error_s, int64_t dropped) {
  text_.clear();
  // 1. Once: who this is.
  if (!std::exchange(has_names_, true)) {
    const Coordinate& at = seat_.at;
    const std::string name = fmt::format("rank {} on {}: pipeline {}, data {}, tensor {}", seat_.rank,
                                         seat_.host, at.pipeline, at.data, at.tensor);
    add(fmt::format(
        R"({{"name":"process_name","ph":"M","pid":{},"tid":0,"args":{{"name":{},"pipeline":{},"data":{},"tensor":{},"times":"{}"}}}})",
        seat_.rank, Json(name).dump(), at.pipeline, at.data, at.tensor,
        times_ == SpanTimes::happened ? "happened" : "enqueued"));
    add(fmt::format(R"({{"name":"process_sort_index","ph":"M","pid":{},"tid":0,"args":{{"sort_index":{}}}}})",
                    seat_.rank, seat_.rank));
    add_name(phase_lane, "step phases");
    add_name(compute_lane, "compute");
  }
  // 2. The spans, by their begin; where two begin together, the longer one holds the other.
  std::vector<Span> sorted(spans.begin(), spans.end());
  std::ranges::sort(sorted, [](const Span& a, const Span& b) {
    return a.begin_s != b.begin_s ? a.begin_s < b.begin_s : a.end_s > b.end_s;
  });
  int64_t last_ns = 0;
  for (const Span& span : sorted) {
    const int64_t begin_ns = ns_of(span.begin_s + shift_s), end_ns = ns_of(span.end_s + shift_s);
    const int lane = lane_of(span, begin_ns, end_ns);
    last_ns = std::max(last_ns, end_ns);
    std::string arguments = arguments_of(span);
    if (span.category == SpanCategory::phase && error_s > 0)
      arguments += fmt::format(R"(,"clock_error_us":{:.3f})", 1e6 * error_s);
    add(fmt::format(R"({{"name":"{}","cat":"{}","ph":"X","pid":{},"tid":{},"ts":{},"dur":{},"args":{}}}}})",
                    span.name, name_of(span.category), seat_.rank, lane, microseconds(begin_ns),
                    microseconds(end_ns - begin_ns), arguments));
  }
  // 3. What is missing.
  if (dropped > 0) {
    add(fmt::format(
        R"({{"name":"{} spans did not fit","ph":"i","s":"p","pid":{},"tid":{},"ts":{},"args":{{"dropped":{}}}}})",
        dropped, seat_.rank, phase_lane, microseconds(last_ns), dropped));
  }
  return std::exchange(text_, {});
}

// --- File --------------------------------------------------------------------------------------------------

TraceFile::TraceFile(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) {
    int number = 1;
    const auto kept = [&] {
      return path.parent_path() /
             fmt::format("{}-{}{}", path.stem().string(), number, path.extension().string());
    };
    while (std::filesystem::exists(kept())) ++number;
    std::error_code error;
    std::filesystem::rename(path, kept(), error);
    check(!error, ExitCode::resources, "log.trace: {} cannot be renamed to {}: {}", path.string(),
          kept().string(), error.message());
    log::info("the trace of an earlier start is kept as {}", kept().string());
  }
  file_ = AppendedFile(path, AppendedFile::Start::anew);
}

void TraceFile::append(std::string_view events) {
  if (events.empty()) return;
  std::string text = std::exchange(is_empty_, false) ? "[\n" : ",\n";
  text += events;
  file_.append(text);
}

void TraceFile::close() {
  if (!file_.is_open()) return;
  file_.append(is_empty_ ? "[\n]\n" : "\n]\n");
  file_ = {};
}

// --- Run ---------------------------------------------------------------------------------------------------

RunTrace::RunTrace(Communicator& world, const std::filesystem::path& path, const TraceSeat& seat,
                   RankClock clock, SpanTimes times, size_t room)
    : world_(world), clock_(std::move(clock)), tracer_(clock_.now_s, times, room), text_(seat, times) {
  agreed(world_, [&] {
    if (world_.rank() == 0) file_ = TraceFile(path);
  });
  start_s_ = clock_.now_s();
  world_.broadcast(Tensor(&start_s_, {1}, DType::f64), 0);
}

void RunTrace::write() {
  if (!tracer_.is_on()) return;
  tracer_.end();
  if (tracer_.dropped() > 0 && !std::exchange(has_warned_, true)) {
    log::warn("log.trace: of a step {} spans did not fit beside {} and are not in the trace",
              tracer_.dropped(), tracer_.room());
  }
  const ClockOffset offset = clock_offset(world_, clock_);
  const std::string mine =
      text_.events(tracer_.spans(), offset.offset_s - start_s_, offset.error_s, tracer_.dropped());
  const std::vector<std::string> all = gather_text(world_, mine, 0);
  agreed(world_, [&] {
    for (const std::string& events : all) file_.append(events);
  });
}

}  // namespace ptrain
