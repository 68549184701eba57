// The trace's text, its file, and reading a step back. What a whole run writes: run_trace_test.
#include "src/train/trace.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "parallel/comm/agree.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/train/trace_read.h"
#include "tests/support/curve.h"
#include "tests/support/file_limit.h"
#include "tests/support/ranks.h"

namespace ptrain {
namespace {

Json events_in(const std::string& text) {
  return parse_json("[" + text + "]", "events");
}

Span compute(int micro, double begin_s, double end_s) {
  return {.name = "forward",
          .category = SpanCategory::compute,
          .begin_s = begin_s,
          .end_s = end_s,
          .step = 3,
          .chunk = 0,
          .micro = micro};
}

Span message(int micro, double begin_s, double end_s) {
  Span span = compute(micro, begin_s, end_s);
  span.name = "send activation";
  span.category = SpanCategory::transfer;
  span.peer = 1;
  return span;
}

TEST(TraceText, NamesARankOnceAndPutsEachSpanOnItsLane) {
  TraceText text({.rank = 5, .at = {.pipeline = 1, .data = 0, .tensor = 1}, .host = "a \"quoted\" host"},
                 SpanTimes::happened);
  const std::vector<Span> spans = {{.name = "step", .begin_s = 10, .end_s = 20, .step = 3},
                                   compute(0, 11, 12),
                                   compute(1, 12, 13.0000005),
                                   {.name = "reduce",
                                    .category = SpanCategory::collective,
                                    .begin_s = 14,
                                    .end_s = 15,
                                    .step = 3,
                                    .bucket = 2}};
  const Json events = events_in(text.events(spans, 100, 2e-6, 0));
  EXPECT_EQ(events[0]["args"],
            Json::parse(R"({"name":"rank 5 on a \"quoted\" host: pipeline 1, data 0, tensor 1","pipeline":1,
                            "data":0,"tensor":1,"times":"happened"})"));
  std::vector<std::string> lanes, bars;
  for (const Json& event : events) {
    EXPECT_EQ(event["pid"], 5);
    if (event["name"] == "thread_name") lanes.push_back(event["args"]["name"]);
    if (event["ph"] == "X") bars.push_back(event.dump());
  }
  EXPECT_EQ(lanes, (std::vector<std::string>{"step phases", "compute", "collectives under way, 1"}));
  EXPECT_EQ(
      bars,
      (std::vector<std::string>{
          R"({"name":"step","cat":"phase","ph":"X","pid":5,"tid":0,"ts":110000000.0,"dur":10000000.0,"args":{"step":3,"clock_error_us":2.0}})",
          R"({"name":"forward","cat":"compute","ph":"X","pid":5,"tid":1,"ts":111000000.0,"dur":1000000.0,"args":{"step":3,"chunk":0,"micro":0}})",
          R"({"name":"forward","cat":"compute","ph":"X","pid":5,"tid":1,"ts":112000000.0,"dur":1000000.5,"args":{"step":3,"chunk":0,"micro":1}})",
          R"({"name":"reduce","cat":"collective","ph":"X","pid":5,"tid":200,"ts":114000000.0,"dur":1000000.0,"args":{"step":3,"bucket":2}})"}));
  const Json later = events_in(text.events(std::vector{compute(2, 30, 31)}, 100, 0, 0));
  EXPECT_EQ(later.size(), 1u) << "names are written once: " << later.dump();
}

TEST(TraceText, MessagesThatAreUnderWayTogetherLieOnLanesOfTheirOwn) {
  TraceText text({}, SpanTimes::happened);
  const std::vector<Span> spans = {message(0, 1, 4), message(1, 2, 3), message(2, 3, 6), message(3, 4, 5)};
  std::vector<int> lanes;
  for (const Json& event : events_in(text.events(spans, 0, 0, 0))) {
    if (event["ph"] == "X") lanes.push_back(event["tid"].get<int>());
  }
  EXPECT_EQ(lanes, (std::vector{100, 101, 101, 100}));
}

TEST(TraceText, TimesOfEnqueueingAreNamedAsSuch) {
  TraceText text({}, SpanTimes::enqueued);
  const Json events = events_in(text.events(std::vector{compute(0, 1, 2), message(0, 2, 3)}, 0, 0, 0));
  std::set<std::string> lanes;
  for (const Json& event : events) {
    if (event["name"] == "thread_name") lanes.insert(event["args"]["name"]);
  }
  EXPECT_EQ(lanes, (std::set<std::string>{"step phases (enqueued)", "compute (enqueued)",
                                          "messages under way, 1 (enqueued)"}));
  EXPECT_EQ(events[0]["args"]["times"], "enqueued");
}

TEST(TraceText, WhatDidNotFitIsSaid) {
  TraceText text({}, SpanTimes::happened);
  const Json events = events_in(text.events(std::vector{compute(0, 1, 2)}, 0, 0, 17));
  EXPECT_EQ(events.back()["name"], "17 spans did not fit");
  EXPECT_EQ(events.back()["ph"], "i");
}

std::string content(const std::filesystem::path& path) {
  return read_text(path, 1 << 20);
}

TEST(TraceFile, IsAnArrayAtTheEndAndAllButItsBracketAtEveryMoment) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "trace.json";
  TraceFile file(path);
  file.append("");
  EXPECT_EQ(content(path), "");
  file.append("{\"a\":1}");
  EXPECT_EQ(content(path), "[\n{\"a\":1}");
  file.append("{\"a\":2},\n{\"a\":3}");
  EXPECT_EQ(parse_json(content(path) + "]", "open").size(), 3u);
  file.close();
  EXPECT_EQ(content(path), "[\n{\"a\":1},\n{\"a\":2},\n{\"a\":3}\n]\n");
  TraceFile(directory.path() / "empty.json").close();
  EXPECT_EQ(read_json(directory.path() / "empty.json"), Json::array());
}

TEST(TraceFile, KeepsThoseOfEarlierStarts) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "trace.json";
  for (const char* start : {"1", "2", "3"}) {
    TraceFile file(path);
    file.append(start);
    file.close();
  }
  EXPECT_EQ(content(path), "[\n3\n]\n");
  EXPECT_EQ(content(directory.path() / "trace-1.json"), "[\n1\n]\n");
  EXPECT_EQ(content(directory.path() / "trace-2.json"), "[\n2\n]\n");
}

TEST(TraceFile, AnOutputThatCannotBeWrittenIsNamed) {
  const TemporaryDirectory directory;
  std::ofstream(directory.path() / "file") << "no directory";
  try {
    TraceFile(directory.path() / "file" / "trace.json");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::resources);
    EXPECT_NE(std::string(error.what()).find("file/trace.json: cannot be written"), std::string::npos)
        << error.what();
  }
}

TEST(RunTrace, AFullDiskEndsNoRunAndTheEventsComeLater) {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "trace.json";
  run_thread_ranks(3, [&](Communicator& world) {
    RunTrace trace(world, path, {.rank = world.rank()}, host_clock(), SpanTimes::happened, 50);
    const auto write_step = [&](int64_t step) {
      trace.tracer().begin(step);
      for (int micro = 0; micro < 50; ++micro)
        trace.tracer().note({.kind = ActionKind::forward, .micro = micro}, 1, 2);
      trace.write();
      world.barrier();
    };
    {
      std::optional<FileLimit> limit;
      if (world.rank() == 0) limit.emplace(2000);
      write_step(1);
      if (world.rank() == 0) {
        EXPECT_EQ(std::filesystem::file_size(path), 2000u);
      }
    }
    write_step(2);
    trace.close();
  });
  int64_t bars = 0;
  for (const Json& event : read_json(path)) bars += event["ph"] == "X";
  EXPECT_EQ(bars, 3 * 2 * 50);
}

TEST(RunTrace, PutsAllRanksOnTheClockOfRank0) {
  // Clocks that are hours apart, told apart by name, as those of three hosts.
  constexpr int ranks = 3;
  const TemporaryDirectory directory;
  const auto path = directory.path() / "trace.json";
  run_ranks(ranks, [&](Communicator& world) {
    const double ahead_s = 3600.5 * world.rank();
    const RankClock clock{.name = fmt::format("clock {}", world.rank()),
                          .now_s = [ahead_s, real = host_clock().now_s] { return real() + ahead_s; }};
    RunTrace trace(world, path, {.rank = world.rank()}, clock, SpanTimes::happened, 8);
    trace.write();  // no step yet: nothing
    for (int64_t step : {1, 2}) {
      trace.tracer().begin(step);
      // A message that goes from rank to rank: each gets it after the one before has sent it.
      double seen_s = 0;
      const Tensor message(&seen_s, {1}, DType::f64);
      if (world.rank() > 0) world.irecv(message, world.rank() - 1, Lane::control).wait();
      const double now_s = clock.now_s();
      trace.tracer().note("relay", SpanCategory::phase, now_s, now_s);
      if (world.rank() + 1 < world.size()) world.isend(message, world.rank() + 1, Lane::control).wait();
      trace.write();
    }
    trace.close();
    world.barrier();
    if (world.rank() != 0) return;
    const Json events = read_json(path);
    std::array<std::vector<double>, 3> relay_us, error_us;  // [step][rank]
    for (const Json& event : events) {
      if (event["ph"] != "X") continue;
      const auto step = event["args"]["step"].get<size_t>();
      EXPECT_EQ(event["pid"].get<size_t>(), relay_us.at(step).size()) << "ranks in order";
      relay_us[step].push_back(event["ts"].get<double>());
      error_us[step].push_back(event["args"].value("clock_error_us", 0.0));
    }
    for (size_t step : {1u, 2u}) {
      ASSERT_EQ(relay_us[step].size(), size_t{ranks});
      EXPECT_GE(relay_us[step][0], 0);
      EXPECT_EQ(error_us[step][0], 0);
      for (size_t rank = 1; rank < ranks; ++rank) {
        EXPECT_GT(error_us[step][rank], 0);
        // Right to within what is said of it; 0.01 us for what f64 loses of hours.
        EXPECT_GE(relay_us[step][rank] + error_us[step][rank],
                  relay_us[step][rank - 1] - error_us[step][rank - 1] - 0.01);
      }
    }
  });
}

}  // namespace
}  // namespace ptrain
