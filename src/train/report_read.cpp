#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "kernels/base/error.h"
#include "parallel/plan/svg.h"
#include "parallel/plan/svg_compare.h"
#include "src/io/json.h"
#include "src/train/config_load.h"
#include "src/train/plan_choice.h"
#include "src/train/report.h"
#include "src/train/trace_read.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

/// Ranks of the run: what its trace says, else the product of its grid.
int ranks_of(const Config& config, const fs::path& trace) {
  std::set<int64_t> ranks;
  std::ifstream file(trace);
  for (std::string line; std::getline(file, line);) {
    const size_t begin = line.find("\"process_name\"");
    if (begin == std::string::npos) continue;
    const size_t pid = line.find("\"pid\":");
    if (pid != std::string::npos) ranks.insert(std::strtoll(line.c_str() + pid + 6, nullptr, 10));
  }
  if (!ranks.empty()) return static_cast<int>(ranks.size());
  check(config.parallel.data.has_value(), ExitCode::usage,
        "parallel.data is auto, and without a trace the number of ranks is not known");
  return config.parallel.tensor * config.parallel.pipeline * *config.parallel.data;
}

/// The plan of the run that is there, drawn; beside a step of its trace where it has one.
std::string draw_timeline(const fs::path& directory) {
  LoadRequest request;
  request.file = directory / "config.yaml";
  const Config config = load_config(request).config;
  const fs::path trace = directory / "trace.json";
  const ModelSpec spec = read_base_model(config).spec;
  const Compute compute = compute_of(config, config.device);
  const auto [plan, why] = chosen_plan(config, spec, ranks_of(config, trace), compute,
                                       ideal_hardware(std::nullopt), "the run had");
  if (fs::exists(trace)) {
    const TracedStep step = read_traced_step(trace, plan, std::nullopt);
    return svg_of_plan_and_run(plan, step.step, step.intervals);
  }
  return svg_of(plan.schedule, plan.map, plan.report, fmt::format("planned: {}", plan.schedule.name));
}

/// "section.key" -> value of a written config.yaml: two levels, a key a line.
std::vector<std::pair<std::string, std::string>> keys_of(const fs::path& file) {
  std::vector<std::pair<std::string, std::string>> keys;
  std::ifstream in(file);
  std::string section;
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const bool is_inner = line.starts_with("  ");
    const std::string name = line.substr(is_inner ? 2 : 0, colon - (is_inner ? 2 : 0));
    const std::string value = colon + 2 <= line.size() ? line.substr(colon + 2) : "";
    if (!is_inner && value.empty()) {
      section = name;
    } else {
      keys.emplace_back(is_inner ? section + "." + name : name, value);
    }
  }
  return keys;
}

void read_metrics(const fs::path& file, RunRecord& run) {
  std::ifstream in(file);
  check(in.good(), ExitCode::input, "{}: no such file; give the output directory of a run", file.string());
  std::map<int64_t, Json> steps, evaluations;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (in.eof()) break;  // a torn last line, or one that is being written
    const std::string where = fmt::format("{}:{}", file.string(), number);
    Json row = parse_json(line, where);
    check(row.is_object() && row.contains("step") && row["step"].is_number_integer(), ExitCode::input,
          "{}: not a row of metrics.jsonl: it has no step", where);
    const auto step = row["step"].get<int64_t>();
    std::map<int64_t, Json>& rows = row.contains("eval_loss") ? evaluations : steps;
    rows[step] = std::move(row);
  }
  for (auto& [step, row] : steps) run.steps.push_back(std::move(row));
  for (auto& [step, row] : evaluations) run.evaluations.push_back(std::move(row));
}

}  // namespace

RunRecord read_run(const fs::path& directory) {
  RunRecord run;
  run.name = fs::absolute(directory).lexically_normal().filename().string();
  if (run.name.empty()) run.name = directory.string();
  read_metrics(directory / "metrics.jsonl", run);
  run.config = keys_of(directory / "config.yaml");
  if (fs::exists(directory / "failure.json")) {
    const Json failure = read_json(directory / "failure.json");
    run.failure = fmt::format("step {}, rank {}: {}", failure.value("step", int64_t{0}),
                              failure.value("rank", 0), failure.value("reason", std::string("?")));
  }
  try {
    run.timeline = draw_timeline(directory);
  } catch (const Error& error) {
    run.no_timeline = error.what();
  }
  return run;
}

}  // namespace ptrain
