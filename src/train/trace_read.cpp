#include "src/train/trace_read.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <tuple>

#include "src/io/json.h"

namespace ptrain {
namespace {

/// An action by what its event says: position, name, chunk, micro, bucket.
using ActionKey = std::tuple<int, std::string, int, int, int>;
using StepSpans = std::map<ActionKey, Interval>;

/// Reads events line by line and keeps the computes of data rank 0, tensor rank 0: of one step, or of the
/// last two, since the last may be torn.
class Reader {
 public:
  Reader(const std::filesystem::path& path, const Plan& plan, std::optional<int64_t> step)
      : path_(path.string()), plan_(plan), wanted_(step) {}

  void read() {
    std::error_code error;
    const auto status = std::filesystem::status(path_, error);
    check(std::filesystem::exists(status), ExitCode::input,
          "{}: no such file; a run with log.trace writes one", path_);
    check(std::filesystem::is_regular_file(status), ExitCode::input, "{}: not a regular file", path_);
    std::ifstream file(path_, std::ios::binary);
    check(file.good(), ExitCode::input, "{}: cannot be read", path_);
    std::string line;
    while (std::getline(file, line)) {
      ++line_;
      is_last_ = file.eof();  // no newline behind it
      read_line(line);
    }
    check(line_ > 0, ExitCode::input, "{}:1: empty, not a trace", path_);
  }

  TracedStep chosen() const {
    const int world = plan_.mesh.world();
    check(ranks_ == world, ExitCode::usage,
          "{}: a trace of {} ranks, but the plan is of {}: give the run's own configuration and --ranks",
          path_, ranks_, world);
    check(
        !has_enqueued_, ExitCode::usage,
        "{}: its ranks computed on GPUs and it holds when work was enqueued, not when it was done: there is "
        "nothing to draw beside the plan",
        path_);
    check(!steps_.empty(), ExitCode::usage, "{}: {}", path_,
          wanted_ ? fmt::format("step {} is not in it; the last one is {}", *wanted_, last_step_)
                  : std::string("no step is in it"));
    auto newest = std::prev(steps_.end());
    // What a killed run wrote last may be half a step.
    if (!is_closed_ && newest != steps_.begin() && !missing(newest->second).empty()) --newest;
    return {.step = newest->first, .intervals = intervals_of(newest->first, newest->second)};
  }

 private:
  std::string where() const { return fmt::format("{}:{}", path_, line_); }

  void read_line(std::string_view line) {
    if (line_ == 1) {
      check(line == "[", ExitCode::input, "{}: not a trace that ptrain wrote: its first line is not \"[\"",
            where());
      return;
    }
    check(!is_closed_ || line.empty(), ExitCode::input, "{}: more behind the closing bracket", where());
    if (is_closed_ || line == "]") {
      is_closed_ = true;
      return;
    }
    if (line.ends_with(',')) line.remove_suffix(1);
    // The last line of a run that was killed.
    if (is_last_ && !Json::accept(line)) return;
    const Json event = parse_json(line, path_, line_);
    check(event.is_object(), ExitCode::input, "{}: an event is {}, expected an object", where(),
          kind_of(event));
    const std::string phase = required<std::string>(event, "ph", where());
    if (phase == "M") return read_name(event);
    if (phase == "X" && required<std::string>(event, "cat", where()) == "compute") read_compute(event);
  }

  const Json& arguments(const Json& event) const {
    const auto found = event.find("args");
    check(found != event.end() && found->is_object(), ExitCode::input, "{}: \"args\" is missing or no object",
          where());
    return *found;
  }

  void read_name(const Json& event) {
    if (required<std::string>(event, "name", where()) != "process_name") return;
    const Json& about = arguments(event);
    const int rank = required<int>(event, "pid", where());
    const Coordinate at{.pipeline = required<int>(about, "pipeline", where()),
                        .data = required<int>(about, "data", where()),
                        .tensor = required<int>(about, "tensor", where())};
    ++ranks_;
    has_enqueued_ |= required<std::string>(about, "times", where()) != "happened";
    check(rank >= 0 && rank < plan_.mesh.world() && plan_.mesh.coordinate_of(rank) == at, ExitCode::usage,
          "{}: rank {} is at pipeline {}, data {}, tensor {}, which is not its place in the plan ({}): give "
          "the "
          "run's own configuration and --ranks",
          where(), rank, at.pipeline, at.data, at.tensor, to_string(plan_.mesh));
    if (at.data == 0 && at.tensor == 0) position_of_[rank] = at.pipeline;
  }

  void read_compute(const Json& event) {
    const Json& about = arguments(event);
    const auto step = required<int64_t>(about, "step", where());
    const double begin_us = required<double>(event, "ts", where()),
                 length_us = required<double>(event, "dur", where());
    check(std::isfinite(begin_us) && length_us >= 0, ExitCode::input,
          "{}: ts {} and dur {} are no span of time", where(), begin_us, length_us);
    last_step_ = std::max(last_step_, step);
    const auto position = position_of_.find(required<int>(event, "pid", where()));
    if (position == position_of_.end() || (wanted_ && step != *wanted_)) return;
    const auto number = [&](const char* name) { return optional_or<int>(about, name, -1, where()); };
    const ActionKey key{position->second, required<std::string>(event, "name", where()), number("chunk"),
                        number("micro"), number("bucket")};
    const Interval interval{begin_us / 1e6, (begin_us + length_us) / 1e6};
    check(steps_[step].emplace(key, interval).second, ExitCode::input, "{}: step {} has this {} twice",
          where(), step, std::get<1>(key));
    if (steps_.size() > 2) steps_.erase(steps_.begin());
  }

  static ActionKey key_of(int position, const Action& action) {
    return {position, std::string(name_of(action.kind)), action.chunk, action.micro, action.bucket};
  }

  /// The first compute of the plan that the step has not; empty where it has all.
  std::string missing(const StepSpans& spans) const {
    for (int position = 0; position < plan_.map.positions(); ++position) {
      for (const Action& action : plan_.schedule.programs[static_cast<size_t>(position)]) {
        if (is_compute(action.kind) && !spans.contains(key_of(position, action)))
          return fmt::format("{} of pipeline rank {}", to_string(action), position);
      }
    }
    return "";
  }

  MeasuredIntervals intervals_of(int64_t step, const StepSpans& spans) const {
    const std::string lacks = missing(spans);
    check(lacks.empty(), ExitCode::usage,
          "{}: step {} has no {}, which the plan has: give the run's own configuration and --ranks", path_,
          step, lacks);
    const auto is_compute_name = [](const auto& span) {
      const std::string& name = std::get<1>(span.first);
      return name.starts_with("forward") || name.starts_with("backward");
    };
    const auto traced = std::ranges::count_if(spans, is_compute_name);
    int64_t planned = 0;
    MeasuredIntervals intervals;
    for (int position = 0; position < plan_.map.positions(); ++position) {
      std::vector<Interval>& mine = intervals.emplace_back();
      for (const Action& action : plan_.schedule.programs[static_cast<size_t>(position)])
        mine.push_back(is_compute(action.kind) ? spans.at(key_of(position, action)) : Interval{});
      planned += std::ranges::count_if(plan_.schedule.programs[static_cast<size_t>(position)],
                                       [](const Action& action) { return is_compute(action.kind); });
    }
    check(traced == planned, ExitCode::usage,
          "{}: step {} has {} forwards and backwards, the plan {}: give the run's own configuration and "
          "--ranks",
          path_, step, traced, planned);
    return intervals;
  }

  std::string path_;
  const Plan& plan_;
  std::optional<int64_t> wanted_;
  int line_ = 0;
  bool is_last_ = false, is_closed_ = false;
  int ranks_ = 0;
  bool has_enqueued_ = false;
  std::map<int, int> position_of_;  // ranks that are looked at
  std::map<int64_t, StepSpans> steps_;
  int64_t last_step_ = 0;
};

}  // namespace

TracedStep read_traced_step(const std::filesystem::path& path, const Plan& plan,
                            std::optional<int64_t> step) {
  Reader reader(path, plan, step);
  reader.read();
  return reader.chosen();
}

}  // namespace ptrain
