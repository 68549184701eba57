// Core lists and a rank's view as text.
#include <charconv>

#include "kernels/base/error.h"
#include "parallel/plan/placement.h"

namespace ptrain {
namespace {

/// Cuts the text at each `mark`; an empty text has no parts.
std::vector<std::string_view> parts_of(std::string_view text, char mark) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t end = text.find(mark);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
    if (text.empty()) parts.emplace_back();
  }
  return parts;
}

template <class Number>
Number number_of(std::string_view text) {
  Number number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  check(error == std::errc{} && end == text.data() + text.size(), "\"{}\" is not a whole number", text);
  return number;
}

/// Names come from the system and hold neither tabs nor line ends; should one, it must not break the others.
std::string clean(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c == '\t' || c == '\n' ? ' ' : c;
  return result;
}

}  // namespace

CpuList parse_cpu_list(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  constexpr int most_cpus = 1 << 16;
  CpuList cpus;
  for (const std::string_view part : parts_of(text, ',')) {
    const size_t dash = part.find('-');
    const int first = number_of<int>(part.substr(0, dash));
    const int last = dash == std::string_view::npos ? first : number_of<int>(part.substr(dash + 1));
    const bool is_ascending = cpus.empty() || first > cpus.back();
    check(first >= 0 && last >= first && last < most_cpus && is_ascending, "\"{}\" is not a list of cores",
          text);
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

std::string to_string(const CpuList& cpus) {
  std::string text;
  for (size_t begin = 0; begin < cpus.size();) {
    size_t end = begin + 1;
    while (end < cpus.size() && cpus[end] == cpus[end - 1] + 1) ++end;
    if (!text.empty()) text += ',';
    text += std::to_string(cpus[begin]);
    if (end > begin + 1) text += '-' + std::to_string(cpus[end - 1]);
    begin = end;
  }
  return text;
}

std::string to_text(const RankView& view) {
  std::string text = fmt::format("host\t{}\n", clean(view.host));
  for (const GpuSeat& gpu : view.gpus) {
    text += fmt::format("gpu\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n", clean(gpu.name), gpu.total_bytes, gpu.major,
                        gpu.minor, clean(gpu.pci_bus_id), clean(gpu.pci_path), gpu.numa_node);
  }
  for (const NicSeat& nic : view.nics)
    text += fmt::format("nic\t{}\t{}\t{}\n", clean(nic.name), clean(nic.pci_path), nic.numa_node);
  for (const auto& [node, cpus] : view.cpus_of_node)
    text += fmt::format("node\t{}\t{}\n", node, to_string(cpus));
  return text;
}

RankView rank_view_from_text(std::string_view text) {
  RankView view;
  for (const std::string_view line : parts_of(text, '\n')) {
    if (line.empty()) continue;
    const std::vector<std::string_view> words = parts_of(line, '\t');
    if (words[0] == "host" && words.size() == 2) {
      view.host = words[1];
    } else if (words[0] == "gpu" && words.size() == 8) {
      view.gpus.push_back({.name = std::string(words[1]),
                           .total_bytes = number_of<int64_t>(words[2]),
                           .major = number_of<int>(words[3]),
                           .minor = number_of<int>(words[4]),
                           .pci_bus_id = std::string(words[5]),
                           .pci_path = std::string(words[6]),
                           .numa_node = number_of<int>(words[7])});
    } else if (words[0] == "nic" && words.size() == 4) {
      view.nics.push_back({std::string(words[1]), std::string(words[2]), number_of<int>(words[3])});
    } else if (words[0] == "node" && words.size() == 3) {
      view.cpus_of_node[number_of<int>(words[1])] = parse_cpu_list(words[2]);
    } else {
      fail(ExitCode::defect, "a rank's view of its host has the line \"{}\"", line);
    }
  }
  return view;
}

}  // namespace ptrain
