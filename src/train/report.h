// `ptrain report`: what runs left on the disk as one page that needs nothing else. Reads, never writes into a
// run.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/io/json.h"

namespace ptrain {

/// What a run has written so far; it may still go on.
struct RunRecord {
  std::string name;         // of its directory, or its path where two share a name
  std::vector<Json> steps;  // rows of metrics.jsonl, by step
  std::vector<Json> evaluations;
  std::vector<std::pair<std::string, std::string>> config;  // every key with its value, as config.yaml has it
  std::string failure;                                      // of failure.json; empty where there is none
  std::string
      timeline;  // an SVG document: the schedule's plan above a measured step; empty = see no_timeline
  std::string no_timeline;
};

/// Errors: ExitCode::input where there is no metrics.jsonl, or a row of it (FILE:line) is not one of
/// ptrain's. A torn last line is left out.
RunRecord read_run(const std::filesystem::path& directory);

/// The page. Charts over steps, a line for each run: loss and evaluations, norm, learning rate, throughput,
/// step time, MFU, memory, stalls by checkpoints, exposed communication; a table of the runs, and of the keys
/// in which they differ.
std::string report_page(std::span<const RunRecord> runs);

}  // namespace ptrain
