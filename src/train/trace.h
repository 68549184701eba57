// <output>/trace.json: what every rank did when, on one clock, in the Trace Event Format that Perfetto
// (ui.perfetto.dev) and chrome://tracing open. Not for noting spans (parallel/run/tracer) nor for reading
// them (trace_read).
#pragma once

#include <array>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/clock.h"
#include "parallel/comm/communicator.h"
#include "parallel/plan/mesh.h"
#include "parallel/run/tracer.h"
#include "src/io/appended_file.h"

namespace ptrain {

/// A rank as the viewer shows it: a process.
struct TraceSeat {
  int rank = 0;
  Coordinate at;
  std::string host;
};

/// The events of one rank as text: a line each, joined by ",\n". Lanes (threads of the viewer): step phases,
/// compute, messages under way, collectives under way, those of layers; of the last three as many as are
/// under way at once.
class TraceText {
 public:
  /// Lanes of spans that are `enqueued` say so in their names.
  TraceText(TraceSeat seat, SpanTimes times);

  /// spans: of one step. shift_s: what makes their times seconds since the start of the run. error_s: how
  /// wrong that may be. dropped: how many spans did not fit.
  std::string events(std::span<const Span> spans, double shift_s, double error_s, int64_t dropped);

 private:
  void add(std::string line);
  void add_name(int lane, const std::string& name);
  int lane_of(const Span& span, int64_t begin_ns, int64_t end_ns);

  TraceSeat seat_;
  SpanTimes times_;
  std::array<std::vector<int64_t>, num_span_categories> ends_ns_;  // of the last span on each lane
  bool has_names_ = false;
  std::string text_;
};

/// A file of events that grows: at every moment all but its closing bracket is there, which viewers do
/// without.
class TraceFile {
 public:
  TraceFile() = default;
  /// A new file. One that is there already is kept as trace-1.json, trace-2.json and so on.
  /// Errors: ExitCode::resources, with path and reason; so do the others.
  explicit TraceFile(const std::filesystem::path& path);
  /// events: as of TraceText
  void append(std::string_view events);
  /// Writes the closing bracket.
  void close();

 private:
  AppendedFile file_;
  bool is_empty_ = true;
};

/// The trace of a run. Made by all ranks together.
class RunTrace {
 public:
  /// A collective. room: spans of a step that a rank has memory for. The run's start is now.
  /// Errors (resources), of all ranks: the file cannot be written.
  RunTrace(Communicator& world, const std::filesystem::path& path, const TraceSeat& seat, RankClock clock,
           SpanTimes times, size_t room);

  Tracer& tracer() { return tracer_; }

  /// A collective: ends the step that is traced and writes what all ranks noted. Does nothing where none is.
  /// The clocks are compared anew, so that drift does not add up. Rank 0 holds a step's text of all ranks,
  /// some 150 bytes a span.
  void write();
  /// The run is over. For rank 0; does nothing elsewhere.
  void close() { file_.close(); }

 private:
  Communicator& world_;
  RankClock clock_;
  Tracer tracer_;
  TraceText text_;
  TraceFile file_;           // on rank 0
  double start_s_ = 0;       // on rank 0's clock
  bool has_warned_ = false;  // of spans that did not fit
};

}  // namespace ptrain
