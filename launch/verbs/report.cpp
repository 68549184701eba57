// ptrain report RUN…: one HTML page of one or several runs.
#include <fmt/core.h>

#include <set>

#include "kernels/base/error.h"
#include "launch/verbs.h"
#include "src/io/file.h"
#include "src/train/report.h"

namespace ptrain {

int run_report(const Arguments& arguments) {
  std::vector<RunRecord> runs;
  std::set<std::string> names;
  for (const std::string& word : arguments.words) {
    runs.push_back(read_run(word));
    if (!names.insert(runs.back().name).second) runs.back().name = word;
  }
  const std::string file = arguments.value("out", "report.html");
  write_text(file, report_page(runs));
  fmt::print("{}\n", file);
  return 0;
}

}  // namespace ptrain
