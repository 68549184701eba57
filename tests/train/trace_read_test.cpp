#include "src/train/trace_read.h"

#include <gtest/gtest.h>

#include <fstream>

#include "parallel/plan/svg_compare.h"
#include "src/train/trace.h"
#include "tests/support/curve.h"

namespace ptrain {
namespace {

const CurveCase& golden() {
  static const CurveCase made("llama-gqa-tied");
  return made;
}

/// The times that a plan has on paper as a trace of `steps` steps, a thousand apart.
class PaperTrace {
 public:
  PaperTrace(const Plan& plan, int steps, SpanTimes times = SpanTimes::happened) {
    for (int rank = 0; rank < plan.mesh.world(); ++rank)
      texts_.emplace_back(TraceSeat{.rank = rank, .at = plan.mesh.coordinate_of(rank), .host = "paper"},
                          times);
    for (int step = 1; step <= steps; ++step) {
      for (int rank = 0; rank < plan.mesh.world(); ++rank) {
        Tracer tracer([] { return 0.0; }, times, 1000);
        tracer.begin(step);
        const auto position = static_cast<size_t>(plan.mesh.coordinate_of(rank).pipeline);
        const std::vector<Action>& program = plan.schedule.programs[position];
        for (size_t i = 0; i < program.size(); ++i) {
          const Interval& interval = plan.report.intervals[position][i];
          // Ranks that are not looked at have other times.
          const double shift_s = 1000.0 * step + (plan.mesh.coordinate_of(rank).data > 0 ? 0.25 : 0);
          tracer.note(program[i], shift_s + seconds * interval.begin_s, shift_s + seconds * interval.end_s);
        }
        if (!text_.empty()) text_ += ",\n";
        text_ += texts_[static_cast<size_t>(rank)].events(tracer.spans(), 0, 0, 0);
      }
    }
  }

  const std::string& text() const { return text_; }
  static constexpr double seconds = 1e-9;  // of a FLOP, by which the plan counts

 private:
  std::vector<TraceText> texts_;
  std::string text_;
};

struct Files {
  std::filesystem::path write(const std::string& text) const {
    const auto path = directory.path() / "trace.json";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  TemporaryDirectory directory;
};

Plan plan_of(const Grid& grid) {
  return plan_on(golden(), grid).value();
}

TEST(TraceRead, AStepComesBackAsItWasPlayed) {
  const Files files;
  for (const Grid& grid :
       {Grid{1, 2, 2, 1}, Grid{2, 4, 1, 1, false, 1, ScheduleName::gpipe}, Grid{1, 1, 3, 1}}) {
    SCOPED_TRACE(to_string(grid));
    const Plan plan = plan_of(grid);
    const auto path = files.write("[\n" + PaperTrace(plan, 3).text() + "\n]\n");
    for (const std::optional<int64_t> step : {std::optional<int64_t>{}, std::optional<int64_t>{2}}) {
      const TracedStep read = read_traced_step(path, plan, step);
      EXPECT_EQ(read.step, step.value_or(3));
      const Report report = measured_report(plan.schedule, plan.map, read.intervals);
      // The file has nanoseconds; a step has some hundred of them that add up.
      EXPECT_NEAR(report.step_s, PaperTrace::seconds * plan.report.step_s, 2e-9);
      EXPECT_NEAR(report.bubble, plan.report.bubble, 1e-3);
      // A run that is as planned is drawn as planned: the same length and bubble in both titles.
      const std::string picture = svg_of_plan_and_run(plan, read.step, read.intervals);
      const std::string title = fmt::format("{:.4g} s, bubble {:.1f} %", report.step_s, 100 * report.bubble);
      EXPECT_NE(picture.find("measured forwards and backwards: " + title), std::string::npos) << title;
      EXPECT_NE(
          picture.find(fmt::format("step {}, data rank 0, tensor rank 0, measured: {}", read.step, title)),
          std::string::npos)
          << title;
    }
  }
}

TEST(TraceRead, AFileWithoutItsEndIsReadUpToTheLastWholeStep) {
  const Files files;
  const Plan plan = plan_of({1, 2, 2, 1});
  const std::string text = "[\n" + PaperTrace(plan, 3).text();
  EXPECT_EQ(read_traced_step(files.write(text), plan, {}).step, 3);
  // Torn anywhere in the last step of rank 0, which begins behind that of rank 3's second one.
  const size_t last_step = text.find(R"("step":3)");
  for (const size_t cut : {last_step + 1, last_step + 40, last_step + 200}) {
    EXPECT_EQ(read_traced_step(files.write(text.substr(0, cut)), plan, {}).step, 2) << cut;
  }
}

struct Wrong {
  std::string what, text;
  ExitCode code;
  std::string message;
  std::optional<int64_t> step = {};
};

TEST(TraceRead, DamagedAndForeignFilesAreNamedWithTheirLine) {
  const Files files;
  const Plan plan = plan_of({1, 2, 2, 1});
  const std::string good = "[\n" + PaperTrace(plan, 2).text() + "\n]\n";
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::string enqueued = "[\n" + PaperTrace(plan, 1, SpanTimes::enqueued).text() + "\n]\n";
  const std::string gpipe = "[\n" + PaperTrace(plan_of({1, 2, 2, 3}), 1).text() + "\n]\n";
  const std::string larger = "[\n" + PaperTrace(plan_of({1, 4, 1, 1}), 1).text() + "\n]\n";
  const std::string less = "[\n" + PaperTrace(plan_of({1, 2, 1, 1}), 1).text() + "\n]\n";
  const std::vector<Wrong> table = {
      {"empty", "", ExitCode::input, "trace.json:1: empty, not a trace"},
      {"foreign", "{\"traceEvents\": []}\n", ExitCode::input, "trace.json:1: not a trace that ptrain wrote"},
      {"of another program",
       "[\n{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"x\"}}\n]\n",
       ExitCode::input, "trace.json:2: \"pipeline\" is missing"},
      {"torn in the middle", replaced("\"process_sort_index\",\"ph\"", "\"process_sort"), ExitCode::input,
       "trace.json:3:"},
      {"no object", replaced("{\"name\":\"process_sort_index\"", "7,{\"name\":\"process_sort_index\""),
       ExitCode::input, "trace.json:3:"},
      {"a number", "[\n7\n]\n", ExitCode::input, "trace.json:2: an event is an integer"},
      {"without a time", replaced("\"ts\":", "\"tz\":"), ExitCode::input, "\"ts\" is missing"},
      {"a time that is a text", replaced("\"ts\":", "\"ts\":\"1\",\"tz\":"), ExitCode::input,
       "\"ts\" is a string"},
      {"a negative length", replaced("\"dur\":", "\"dur\":-"), ExitCode::input, "are no span of time"},
      {"more behind it", good + "{}\n", ExitCode::input, "more behind the closing bracket"},
      {"without a step", "[\n]\n", ExitCode::usage, "a trace of 0 ranks, but the plan is of 4"},
      {"a step that is not there", good, ExitCode::usage, "step 7 is not in it; the last one is 2", 7},
      {"enqueued", enqueued, ExitCode::usage, "its ranks computed on GPUs"},
      {"other micro-batches", gpipe, ExitCode::usage, "which the plan has"},
      {"another grid", larger, ExitCode::usage,
       "rank 1 is at pipeline 1, data 0, tensor 0, which is not its place"},
      {"fewer ranks", less, ExitCode::usage, "rank 1 is at pipeline 1"},
      {"an action twice", replaced("\"micro\":1", "\"micro\":0"), ExitCode::input, "has this forward twice"},
  };
  for (const Wrong& wrong : table) {
    SCOPED_TRACE(wrong.what);
    try {
      read_traced_step(files.write(wrong.text), plan, wrong.step);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), wrong.code) << error.what();
      EXPECT_NE(std::string(error.what()).find(wrong.message), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(read_traced_step(files.directory.path() / "nowhere.json", plan, {}), Error);
  EXPECT_THROW(read_traced_step(files.directory.path(), plan, {}), Error);
}

TEST(TraceRead, AnActionThatThePlanHasNotIsRefused) {
  const Files files;
  const Plan plan = plan_of({1, 2, 2, 1});
  const std::string text = PaperTrace(plan, 1).text();
  const size_t begin = text.find("{\"name\":\"forward\""), end = text.find(",\n", begin);
  std::string more = text.substr(begin, end - begin);
  const std::string micro = "\"micro\":0";
  more.replace(more.find(micro), micro.size(), "\"micro\":77");
  try {
    read_traced_step(files.write("[\n" + text + ",\n" + more + "\n]\n"), plan, {});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("forwards and backwards, the plan"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace ptrain
