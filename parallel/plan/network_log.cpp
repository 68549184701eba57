// Names and versions as text, and what NCCL's log tells of the network that it took.
#include <charconv>
#include <vector>

#include "kernels/base/error.h"
#include "parallel/plan/network.h"

namespace ptrain {
namespace {

/// The text of `line` behind `mark`, if it is there; upper and lower case are alike.
std::optional<std::string_view> behind(std::string_view line, std::string_view mark) {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  for (size_t at = 0; at + mark.size() <= line.size(); ++at) {
    size_t same = 0;
    while (same < mark.size() && low(line[at + same]) == low(mark[same])) ++same;
    if (same == mark.size()) return line.substr(at + same);
  }
  return std::nullopt;
}

std::string_view first_word(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\"");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_first_of(" \t,\"\r(", begin) - begin);
}

/// What the lines of a log have told so far.
struct Findings {
  std::string network;               // behind "Using network"
  std::string provider;              // of libfabric
  std::string nics;                  // "16": how many libfabric found
  std::vector<std::string> hcas;     // "mlx5_0:1/RoCE"
  std::vector<std::string> sockets;  // "eth0"
  bool is_gpudirect = false;
};

/// "[0]mlx5_0:1/RoCE [1]mlx5_1:1/RoCE [RO]; OOB eth0:10.0.0.1<0>": the words behind numbers in brackets.
std::vector<std::string> numbered(std::string_view text) {
  std::vector<std::string> words;
  for (size_t at = text.find('['); at != std::string_view::npos; at = text.find('[', at + 1)) {
    size_t end = at + 1;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    if (end == at + 1 || end >= text.size() || text[end] != ']') continue;
    words.emplace_back(first_word(text.substr(end + 1)));
  }
  return words;
}

void read_line(std::string_view line, Findings& found) {
  if (const auto rest = behind(line, "Using network "); rest) {
    const size_t end = rest->find_last_not_of(" \t\r");
    found.network = std::string(rest->substr(0, end == std::string_view::npos ? 0 : end + 1));
  }
  if (const auto rest = behind(line, "Selected provider is "); rest) {
    found.provider = std::string(first_word(*rest));
    found.nics = std::string(first_word(behind(*rest, "(found ").value_or("")));
  }
  if (const auto rest = behind(line, "NET/IB : Using "); rest) found.hcas = numbered(*rest);
  if (const auto rest = behind(line, "NET/Socket : Using "); rest) found.sockets = numbered(*rest);
  if (behind(line, " via NET/") && behind(line, "/GDRDMA")) found.is_gpudirect = true;
}

std::string joined_until(const std::vector<std::string>& words, char end) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word.substr(0, word.find(end));
  return text;
}

ChosenNetwork of_libfabric(const Findings& found) {
  const std::string name = found.network.empty() ? "Libfabric" : found.network;
  if (found.provider == "efa") {
    const std::string nics = found.nics.empty() ? "" : fmt::format(", {} devices", found.nics);
    return {NetworkKind::efa, fmt::format("EFA by {}{}", name, nics)};
  }
  const bool is_tcp = found.provider.starts_with("tcp") || found.provider.starts_with("sockets");
  const std::string by = found.provider.empty() ? "" : fmt::format(", provider {}", found.provider);
  return {is_tcp ? NetworkKind::tcp : NetworkKind::unknown, name + by};
}

ChosenNetwork of_verbs(const Findings& found) {
  bool is_roce = false;
  for (const std::string& hca : found.hcas) is_roce = is_roce || hca.ends_with("/RoCE");
  const NetworkKind kind = is_roce ? NetworkKind::roce : NetworkKind::infiniband;
  const std::string names = joined_until(found.hcas, ':');
  return {kind, names.empty() ? std::string(name_of(kind)) : fmt::format("{}, {}", name_of(kind), names)};
}

ChosenNetwork of_sockets(const Findings& found) {
  const std::string names = joined_until(found.sockets, ':');
  return {NetworkKind::tcp, names.empty() ? "TCP" : "TCP, " + names};
}

/// The last word is that of "Using network"; a log without it ends in what was found before.
ChosenNetwork conclusion(const Findings& found) {
  if (!found.network.empty()) {
    if (found.network.ends_with("Libfabric")) return of_libfabric(found);
    if (found.network.starts_with("IB")) return of_verbs(found);
    if (found.network == "Socket") return of_sockets(found);
    return {NetworkKind::unknown, found.network};
  }
  if (!found.provider.empty()) return of_libfabric(found);
  if (!found.hcas.empty()) return of_verbs(found);
  if (!found.sockets.empty()) return of_sockets(found);
  return {};
}

}  // namespace

Version parse_version(std::string_view text) {
  Version version;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (int* part : {&version.major, &version.minor, &version.patch}) {
    const auto [stop, error] = std::from_chars(at, end, *part);
    if (error != std::errc{} || *part < 0) {
      *part = 0;
      break;
    }
    if (stop == end || *stop != '.') break;
    at = stop + 1;
  }
  return version;
}

Version nccl_version_of(int number) {
  return {number / 10000, number / 100 % 100, number % 100};
}

std::string to_string(Version version) {
  if (!version.is_known()) return "unknown";
  return fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
}

std::string_view name_of(NetworkKind kind) {
  switch (kind) {
    case NetworkKind::none:
      return "none";
    case NetworkKind::tcp:
      return "TCP";
    case NetworkKind::roce:
      return "RoCE";
    case NetworkKind::infiniband:
      return "InfiniBand";
    case NetworkKind::efa:
      return "EFA";
    case NetworkKind::unknown:
      break;
  }
  return "unknown";
}

ChosenNetwork network_in_nccl_log(std::string_view text) {
  Findings found;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    read_line(text.substr(0, end), found);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
  }
  ChosenNetwork chosen = conclusion(found);
  chosen.is_gpudirect = found.is_gpudirect;
  return chosen;
}

std::string objection_to(const ChosenNetwork& chosen, const NetworkDecision& decision, SlowNetwork slow) {
  const bool is_slow = chosen.kind == NetworkKind::tcp && decision.has_fast_network;
  const bool is_alone = decision.expected == NetworkKind::none;
  if (!is_slow || is_alone || slow == SlowNetwork::allowed) return "";
  return fmt::format(
      "NCCL took {} although {} is there; NCCL_DEBUG=INFO tells why, or accept the slow network with "
      "parallel.allow_slow_network: true",
      chosen.text,
      decision.expected == NetworkKind::tcp ? std::string_view("a faster network")
                                            : name_of(decision.expected));
}

}  // namespace ptrain
