#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "parallel/plan/svg.h"
#include "src/io/json.h"
#include "src/train/chart.h"
#include "src/train/metrics.h"
#include "src/train/report.h"

namespace ptrain {
namespace {

constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

constexpr std::string_view style = R"(
:root { --paper: #ffffff; --ink: #1f2430; --faint: #69707d; --rule: #dfe3ea;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #7a5cc7; --c5: #b8860b; --c6: #56b4e9; --c7: #444444; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171d; --ink: #e6e8ec; --faint: #9aa2af; --rule: #2c323d;
  --c0: #4ba3e3; --c1: #ff8b4d; --c2: #35c79d; --c3: #e9a5c8; --c4: #a58cf0; --c5: #e0b84a; --c6: #8fd0f5; --c7: #bbbbbb; } }
body { margin: 0 auto; padding: 24px; max-width: 1200px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; } p { margin: 4px 0; }
.faint { color: var(--faint); } .failed { color: var(--c1); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.number, th.number { text-align: right; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 16px; }
.charts svg { width: 100%; height: auto; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }
.axis { stroke: var(--rule); fill: none; } .label { fill: var(--faint); font-size: 11px; }
.title { fill: var(--ink); font-size: 14px; font-weight: 600; }
[class^="line-"] { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.line-0 { stroke: var(--c0); } .line-1 { stroke: var(--c1); } .line-2 { stroke: var(--c2); } .line-3 { stroke: var(--c3); }
.line-4 { stroke: var(--c4); } .line-5 { stroke: var(--c5); } .line-6 { stroke: var(--c6); } .line-7 { stroke: var(--c7); }
.timeline { background: #ffffff; border-radius: 6px; overflow-x: auto; } .timeline svg { max-width: none; }
)";

double value_of(const Json& row, const char* key) {
  const auto it = row.find(key);
  return it != row.end() && it->is_number() ? it->get<double>() : nothing;
}

std::vector<double> values_of(const std::vector<Json>& rows, const char* key) {
  std::vector<double> values;
  for (const Json& row : rows) values.push_back(value_of(row, key));
  return values;
}

double last_of(const std::vector<Json>& rows, const char* key) {
  return rows.empty() ? nothing : value_of(rows.back(), key);
}

std::vector<double> finite(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  return values;
}

double sum_of(const std::vector<Json>& rows, const char* key) {
  double sum = 0;
  for (const double value : finite(values_of(rows, key))) sum += value;
  return sum;
}

double mean_of(const std::vector<Json>& rows, const char* key) {
  const std::vector<double> values = finite(values_of(rows, key));
  return values.empty() ? nothing : sum_of(rows, key) / static_cast<double>(values.size());
}

double median_of(const std::vector<Json>& rows, const char* key) {
  std::vector<double> values = finite(values_of(rows, key));
  if (values.empty()) return nothing;
  std::ranges::nth_element(values, values.begin() + std::ssize(values) / 2);
  return values[values.size() / 2];
}

double least_of(const std::vector<Json>& rows, const char* key) {
  const std::vector<double> values = finite(values_of(rows, key));
  return values.empty() ? nothing : *std::ranges::min_element(values);
}

double most_of(const std::vector<Json>& rows, const char* key) {
  const std::vector<double> values = finite(values_of(rows, key));
  return values.empty() ? nothing : *std::ranges::max_element(values);
}

/// Of one number a row of each run.
struct Curve {
  const char* key;
  const char* title;
  const char* unit;
  double scale = 1;
  bool is_logarithmic = false;
  bool begins_at_zero = false;
};

constexpr Curve curves[] = {
    {"loss", "Loss", "nats a supervised token"},
    {"grad_norm", "Gradient norm", "before clipping", 1, true},
    {"lr", "Learning rate", "", 1, false, true},
    {"tokens_per_s", "Throughput", "tokens a second", 1, false, true},
    {"step_s", "Step", "seconds", 1, false, true},
    {"mfu", "Model FLOPs utilisation", "%", 100, false, true},
    {"peak_memory_bytes", "Peak memory of a rank", "GiB", 1.0 / (1 << 30), false, true},
    {"checkpoint_stall_s", "Steps held up by checkpoints", "seconds", 1, false, true},
    {"exposed_communication", "Communication that nothing hides", "% of a step", 100, false, true},
    {"pad_fraction", "Padding", "% of all tokens", 100, false, true},
    {"skipped_steps", "Skipped steps, so far", "", 1, false, true},
};

Chart chart_of(const Curve& curve, std::span<const RunRecord> runs) {
  Chart chart{.title = curve.title,
              .unit = curve.unit,
              .is_logarithmic = curve.is_logarithmic,
              .begins_at_zero = curve.begins_at_zero,
              .lines = {}};
  for (const RunRecord& run : runs) {
    ChartLine& line = chart.lines.emplace_back();
    line.name = run.name, line.x = values_of(run.steps, "step"), line.y = values_of(run.steps, curve.key);
    for (double& value : line.y) value *= curve.scale;
    line.has_points = line.x.size() <= 40;
  }
  return chart;
}

Chart evaluation_chart(std::span<const RunRecord> runs) {
  Chart chart{.title = "Validation loss", .unit = "nats a supervised token", .lines = {}};
  for (const RunRecord& run : runs) {
    chart.lines.push_back({.name = run.name,
                           .x = values_of(run.evaluations, "step"),
                           .y = values_of(run.evaluations, "eval_loss"),
                           .has_points = true});
  }
  return chart;
}

bool has_values(const Chart& chart) {
  return std::ranges::any_of(chart.lines, [](const ChartLine& line) { return !finite(line.y).empty(); });
}

std::string number(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : std::string("–");
}

std::string cell(const std::string& text, bool is_number = true) {
  return fmt::format("<td{}>{}</td>", is_number ? " class=\"number\"" : "", text);
}

std::string table_of_runs(std::span<const RunRecord> runs) {
  std::string text =
      "<div class=\"scroll\"><table>\n<tr><th>run</th><th class=\"number\">steps</th><th "
      "class=\"number\">last loss</th>"
      "<th class=\"number\">mean loss</th><th class=\"number\">best validation</th><th "
      "class=\"number\">tokens/s, median</th>"
      "<th class=\"number\">step, median</th><th class=\"number\">MFU, mean</th><th class=\"number\">peak "
      "memory</th>"
      "<th class=\"number\">stalls</th><th class=\"number\">exposed</th></tr>\n";
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunRecord& run = runs[i];
    const std::vector<Json>& rows = run.steps;
    text += fmt::format(
        "<tr><td><span class=\"swatch\" style=\"background: var(--c{})\"></span>{}{}</td>", i % 8,
        escaped(run.name),
        run.failure.empty() ? "" : "<br><span class=\"failed\">" + escaped(run.failure) + "</span>");
    text += cell(number(last_of(rows, "step"), 0)) + cell(number(last_of(rows, "loss"), 4)) +
            cell(number(mean_of(rows, "loss"), 4)) + cell(number(least_of(run.evaluations, "eval_loss"), 4)) +
            cell(number(median_of(rows, "tokens_per_s"), 0)) +
            cell(number(median_of(rows, "step_s"), 3) + " s") +
            cell(number(100 * mean_of(rows, "mfu"), 1) + " %") +
            cell(number(most_of(rows, "peak_memory_bytes") / (1 << 30), 2) + " GiB") +
            cell(clock_text(sum_of(rows, "checkpoint_stall_s"))) +
            cell(number(100 * mean_of(rows, "exposed_communication"), 1) + " %") + "</tr>\n";
  }
  return text + "</table></div>\n";
}

/// Keys of the configuration whose values are not the same in all runs.
std::string table_of_differences(std::span<const RunRecord> runs) {
  std::map<std::string, std::vector<std::string>> values;
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const auto& [key, value] : runs[i].config) {
      values[key].resize(runs.size());
      values[key][i] = value;
    }
  }
  std::string text;
  for (auto& [key, of_runs] : values) {
    if (key == "output" || std::ranges::count(of_runs, of_runs.front()) == std::ssize(of_runs)) continue;
    text += "<tr><td>" + escaped(key) + "</td>";
    for (const std::string& value : of_runs) text += cell(escaped(value), false);
    text += "</tr>\n";
  }
  if (text.empty()) return "<p class=\"faint\">The runs have the same configuration.</p>\n";
  std::string head = "<div class=\"scroll\"><table>\n<tr><th>key</th>";
  for (const RunRecord& run : runs) head += "<th>" + escaped(run.name) + "</th>";
  return head + "</tr>\n" + text + "</table></div>\n";
}

std::string configuration_of(const RunRecord& run) {
  std::string text = "<details><summary>" + escaped(run.name) + "</summary><div class=\"scroll\"><table>\n";
  for (const auto& [key, value] : run.config)
    text += "<tr><td>" + escaped(key) + "</td>" + cell(escaped(value), false) + "</tr>\n";
  return text + "</table></div></details>\n";
}

}  // namespace

std::string report_page(std::span<const RunRecord> runs) {
  std::string names;
  for (const RunRecord& run : runs) names += (names.empty() ? "" : ", ") + run.name;
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>ptrain: "
      "{}</title>\n<style>{}</style>\n</head>\n<body>\n"
      "<h1>{}</h1>\n<p class=\"faint\">Over steps. Loss is that of the batch before its update; means are "
      "over the steps "
      "that were logged.</p>\n",
      escaped(names), style, escaped(names));
  page += table_of_runs(runs);
  page += "<h2>Course</h2>\n<div class=\"charts\">\n";
  std::vector<Chart> charts = {chart_of(curves[0], runs), evaluation_chart(runs)};
  for (size_t i = 1; i < std::size(curves); ++i) charts.push_back(chart_of(curves[i], runs));
  for (const Chart& chart : charts)
    if (has_values(chart)) page += svg_of(chart);
  page += "</div>\n";
  if (runs.size() > 1) page += "<h2>What differs</h2>\n" + table_of_differences(runs);
  page += "<h2>Schedule</h2>\n";
  for (const RunRecord& run : runs) {
    page += "<p>" + escaped(run.name) + "</p>\n";
    page += run.timeline.empty() ? "<p class=\"faint\">No timeline: " + escaped(run.no_timeline) + "</p>\n"
                                 : "<div class=\"timeline\">" + run.timeline + "</div>\n";
  }
  page += "<h2>Configuration</h2>\n";
  for (const RunRecord& run : runs) page += configuration_of(run);
  return page + "</body>\n</html>\n";
}

}  // namespace ptrain
