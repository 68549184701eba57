#include "src/train/banner.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <set>

#include "kernels/base/error.h"
#include "parallel/plan/ledger.h"

namespace ptrain {
namespace {

constexpr size_t most_shown = 16;
constexpr size_t shown_first = 8;  // the ranks of a usual host
constexpr size_t shown_last = 4;

using Row = std::array<std::string, 5>;

std::string gpu_text(const RankSeat& seat) {
  const std::string text = seat.gpu.name.empty() ? "-" : seat.gpu.name;
  if (seat.gpu.total_bytes <= 0) return text;
  return fmt::format("{}, {}", text, bytes_text(static_cast<double>(seat.gpu.total_bytes)));
}

Row row_of(size_t rank, const RankSeat& seat) {
  return {std::to_string(rank), seat.host, fmt::format("{} {}", seat.device, gpu_text(seat)),
          seat.numa_node < 0 ? "-" : std::to_string(seat.numa_node), seat.nic.empty() ? "-" : seat.nic};
}

/// Worth a line of its own among many.
bool is_odd(const RankSeat& seat, const RankSeat& first) {
  return seat.gpu.name != first.gpu.name || seat.nic.empty() != first.nic.empty();
}

std::vector<bool> shown(std::span<const RankSeat> seats) {
  std::vector<bool> is_shown(seats.size(), true);
  if (seats.size() <= most_shown) return is_shown;
  size_t odd = 0;
  for (size_t rank = shown_first; rank + shown_last < seats.size(); ++rank) {
    is_shown[rank] = is_odd(seats[rank], seats[0]) && odd < most_shown;
    if (is_shown[rank]) ++odd;
  }
  return is_shown;
}

std::string counted(size_t count, std::string_view one) {
  return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

std::string summary(std::span<const RankSeat> seats) {
  std::set<std::string> hosts;
  std::set<std::pair<std::string, std::string>> devices;
  std::map<std::string, size_t> kinds;
  for (const RankSeat& seat : seats) {
    hosts.insert(seat.host);
    if (devices.emplace(seat.host, seat.gpu.pci_bus_id).second) ++kinds[gpu_text(seat)];
  }
  std::string gpus;
  for (const auto& [kind, count] : kinds)
    gpus += fmt::format("{}{} x {}", gpus.empty() ? "" : "; ", count, kind);
  return fmt::format("{} on {}, {}", counted(seats.size(), "rank"), counted(hosts.size(), "host"), gpus);
}

std::string line_of(const Row& row, const std::array<size_t, 5>& widths) {
  std::string line = fmt::format("{:>{}}  ", row[0], widths[0]);
  for (size_t column = 1; column < row.size(); ++column) {
    line += fmt::format("{:<{}}  ", row[column], widths[column]);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

std::vector<std::string> seat_lines(std::span<const RankSeat> seats) {
  if (seats.empty()) return {};
  const std::vector<bool> is_shown = shown(seats);
  const Row head = {"rank", "host", "GPU", "NUMA", "NIC"};
  std::vector<Row> rows(seats.size());
  std::array<size_t, 5> widths{};
  for (size_t column = 0; column < head.size(); ++column) widths[column] = head[column].size();
  for (size_t rank = 0; rank < seats.size(); ++rank) {
    if (!is_shown[rank]) continue;
    rows[rank] = row_of(rank, seats[rank]);
    for (size_t column = 0; column < head.size(); ++column) {
      widths[column] = std::max(widths[column], rows[rank][column].size());
    }
  }
  std::vector<std::string> lines = {summary(seats), line_of(head, widths)};
  for (size_t rank = 0; rank < seats.size();) {
    if (is_shown[rank]) {
      lines.push_back(line_of(rows[rank], widths));
      ++rank;
      continue;
    }
    size_t end = rank;
    while (end < seats.size() && !is_shown[end]) ++end;
    const auto first = seats.begin() + static_cast<std::ptrdiff_t>(rank);
    const bool has_odd = std::any_of(first, seats.begin() + static_cast<std::ptrdiff_t>(end),
                                     [&](const RankSeat& seat) { return is_odd(seat, seats[0]); });
    lines.push_back(fmt::format("{:>{}}  ranks {} to {} {}", "...", widths[0], rank, end - 1,
                                has_odd ? "shown no more" : "alike"));
    rank = end;
  }
  return lines;
}

std::vector<std::string> decision_lines(const NetworkDecision& decision) {
  std::vector<std::string> lines;
  if (decision.expected == NetworkKind::none) {
    lines.push_back("network: none needed, one host");
  } else {
    lines.push_back(fmt::format("network: {} expected between hosts", name_of(decision.expected)));
  }
  for (const EnvironmentSetting& setting : decision.settings) {
    lines.push_back(fmt::format("  set {}={}: {}", setting.name, setting.value, setting.why));
  }
  return lines;
}

std::string chosen_line(const ChosenNetwork& chosen, const NetworkDecision& decision) {
  if (chosen.text.empty()) {
    return "NCCL did not say which network it took; NCCL_DEBUG=INFO and NCCL_DEBUG_SUBSYS=INIT,NET make it";
  }
  std::string line = "NCCL took " + chosen.text;
  if (chosen.is_gpudirect) line += ", straight to and from GPU memory";
  const bool is_known = chosen.kind != NetworkKind::unknown && decision.expected != NetworkKind::unknown;
  if (decision.expected != NetworkKind::none && is_known && chosen.kind != decision.expected)
    line += fmt::format(", not {} as expected", name_of(decision.expected));
  return line;
}

}  // namespace ptrain
