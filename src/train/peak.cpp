#include "src/train/peak.h"

#include <array>
#include <fstream>

#include "src/io/file.h"
#include "src/io/json.h"

namespace ptrain {
namespace {

constexpr int64_t most_bytes = int64_t{1} << 20;

/// "value" of "key<blanks>: value".
std::string_view value_of(std::string_view line) {
  const size_t colon = line.find(": ");
  return colon == std::string_view::npos ? "" : line.substr(colon + 2);
}

bool is_of(const Json& record, const PeakKey& key) {
  return record.is_object() && record.value("cpu", Json()) == Json(key.cpu) &&
         record.value("threads", Json()) == Json(key.threads);
}

/// The file's records; none where it is not there or says something else.
Json records_of(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) return Json::array();
  try {
    const Json whole = read_json(file, most_bytes);
    if (whole.is_object() && whole.contains("peaks") && whole["peaks"].is_array()) return whole["peaks"];
  } catch (const Error&) {
    // A damaged cache is an empty one: the next measurement writes it anew.
  }
  return Json::array();
}

}  // namespace

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  std::string name, family, model;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    if (line.starts_with("model name")) name = value_of(line);
    if (line.starts_with("cpu family")) family = value_of(line);
    if (line.starts_with("model\t")) model = value_of(line);
  }
  if (name.empty()) return "unknown CPU";
  return family.empty() ? name : fmt::format("{} ({}/{})", name, family, model);
}

std::optional<NodePeak> read_peak(const std::filesystem::path& file, const PeakKey& key) {
  for (const Json& record : records_of(file)) {
    if (!is_of(record, key)) continue;
    NodePeak peak;
    for (const auto& [name, value] :
         {std::pair{"sgemm_flops", &peak.sgemm_flops}, std::pair{"fma_flops", &peak.fma_flops},
          std::pair{"read_bytes_per_s", &peak.read_bytes_per_s}}) {
      if (!record.contains(name) || !record[name].is_number()) return std::nullopt;
      *value = record[name].get<double>();
      if (!(*value > 0)) return std::nullopt;
    }
    return peak;
  }
  return std::nullopt;
}

void write_peak(const std::filesystem::path& file, const PeakKey& key, const NodePeak& peak) {
  Json kept = Json::array();
  for (const Json& record : records_of(file)) {
    if (!is_of(record, key)) kept.push_back(record);
  }
  kept.push_back({{"cpu", key.cpu},
                  {"threads", key.threads},
                  {"sgemm_flops", peak.sgemm_flops},
                  {"fma_flops", peak.fma_flops},
                  {"read_bytes_per_s", peak.read_bytes_per_s}});
  make_directories(file.parent_path());
  write_text(file, Json{{"peaks", kept}}.dump(2) + "\n");
}

std::optional<double> peak_of_job(Communicator& world, std::optional<double> node_flops, int ranks_on_node) {
  std::array<double, 2> sums{node_flops.value_or(0) / ranks_on_node, node_flops ? 0.0 : 1.0};
  world.all_reduce(Tensor(sums.data(), {2}, DType::f64));
  if (sums[1] > 0) return std::nullopt;
  return sums[0];
}

}  // namespace ptrain
