#include "parallel/plan/network.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr Version first_libfabric_with_rdma_on{1, 18, 0};
constexpr Version first_plugin_with_rdma_on{1, 7, 0};
constexpr Version first_plugin_that_finds_efa{1, 6, 0};
constexpr Version first_plugin_for_p5{1, 7, 2};
constexpr Version first_nccl_for_p5{2, 18, 0};
constexpr Version first_nccl_with_plugin_paths{2, 20, 0};
constexpr Version first_nccl_that_finds_gids{2, 21, 0};
constexpr Version first_nccl_with_shared_gpus{2, 30, 0};
constexpr Version first_fork_safe_kernel{5, 15, 0};
constexpr int default_connections = 8;  // of CUDA_DEVICE_MAX_CONNECTIONS
constexpr int most_connections = 32;

constexpr const char* watched[] = {"CUDA_DEVICE_MAX_CONNECTIONS",
                                   "FI_EFA_FORK_SAFE",
                                   "FI_EFA_USE_DEVICE_RDMA",
                                   "FI_PROVIDER",
                                   "NCCL_BUFFSIZE",
                                   "NCCL_DEBUG",
                                   "NCCL_DEBUG_FILE",
                                   "NCCL_DEBUG_SUBSYS",
                                   "NCCL_IB_DISABLE",
                                   "NCCL_IB_GID_INDEX",
                                   "NCCL_IB_TC",
                                   "NCCL_MULTI_RANK_GPU_ENABLE",
                                   "NCCL_NET",
                                   "NCCL_NET_PLUGIN",
                                   "NCCL_P2P_NET_CHUNKSIZE",
                                   "NCCL_PROTO",
                                   "NCCL_SOCKET_IFNAME",
                                   "NCCL_TUNER_PLUGIN",
                                   "RDMAV_FORK_SAFE"};

/// A version that is not known counts as recent.
bool is_older(Version version, Version than) {
  return version.is_known() && version < than;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

int64_t number_or(const std::string* text, int64_t otherwise) {
  if (text == nullptr) return otherwise;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  return error == std::errc{} && end == text->data() + text->size() ? number : otherwise;
}

/// A decision in the making.
struct Draft {
  const NetworkReport& report;
  NetworkDecision decision;

  /// The user's value, or null.
  const std::string* user(const std::string& name) const {
    const auto it = report.set_by_user.find(name);
    return it == report.set_by_user.end() ? nullptr : &it->second;
  }
  void set(const char* name, std::string value, std::string why) {
    if (user(name) == nullptr) decision.settings.push_back({name, std::move(value), std::move(why)});
  }
  void warn(std::string text) { decision.warnings.push_back(std::move(text)); }

  int64_t count(NetworkKind kind) const {
    return std::ranges::count_if(
        report.rdma, [&](const RdmaDevice& device) { return device.kind == kind && device.is_active; });
  }
  bool is_instance(std::initializer_list<std::string_view> families) const {
    const std::string family = report.instance_kind.substr(0, report.instance_kind.find('.'));
    return std::ranges::find(families, family) != families.end();
  }
  bool has_efa_rdma() const { return is_instance({"p4d", "p4de", "p5", "p5e", "p5en"}); }
};

/// Why NCCL would pass a network by, and what to do; an empty text where nothing stands in the way.
struct Obstacle {
  std::string why;
  std::string fix;
};

/// FI_PROVIDER names the providers to use or, behind a ^, those to pass by; nothing means all.
bool lets_efa_through(const std::string& provider) {
  if (provider.empty()) return true;
  const bool names_efa = lower(provider).find("efa") != std::string::npos;
  return names_efa != provider.starts_with('^');
}

Obstacle obstacle_to_efa(const Draft& draft) {
  const NetworkReport& report = draft.report;
  if (const std::string* net = draft.user("NCCL_NET"); net && !net->empty()) {
    if (!lower(*net).ends_with("libfabric")) return {"NCCL_NET=" + *net + " is set", "unset NCCL_NET"};
  }
  if (const std::string* plugin = draft.user("NCCL_NET_PLUGIN"); plugin != nullptr && *plugin == "none") {
    return {"NCCL_NET_PLUGIN=none is set", "unset NCCL_NET_PLUGIN"};
  }
  if (const std::string* provider = draft.user("FI_PROVIDER")) {
    if (!lets_efa_through(*provider)) return {"FI_PROVIDER=" + *provider + " is set", "unset FI_PROVIDER"};
  }
  if (!report.has_libfabric) {
    return {"libfabric was not found", "run the EFA installer on every host and in the container image"};
  }
  if (report.plugin_path.empty()) {
    return {"NCCL's plugin aws-ofi-nccl was not found",
            "install it (the EFA installer brings it from 1.38 on), or add its folder to LD_LIBRARY_PATH"};
  }
  const bool needs_path = !report.is_plugin_on_search_path && draft.user("NCCL_NET_PLUGIN") == nullptr;
  if (needs_path && report.nccl < first_nccl_with_plugin_paths) {
    return {"NCCL's plugin " + report.plugin_path + " is outside of the library search path",
            "add its folder to LD_LIBRARY_PATH"};
  }
  return {};
}

Obstacle obstacle_to_infiniband(const Draft& draft) {
  if (const std::string* net = draft.user("NCCL_NET"); net && !net->empty()) {
    if (!lower(*net).starts_with("ib")) return {"NCCL_NET=" + *net + " is set", "unset NCCL_NET"};
  }
  if (const std::string* disable = draft.user("NCCL_IB_DISABLE"); number_or(disable, 0) != 0)
    return {"NCCL_IB_DISABLE=" + *disable + " is set", "unset NCCL_IB_DISABLE"};
  return {};
}

/// Which network NCCL should come to, and what to say where that is a slow one.
void expect_network(Draft& draft, SlowNetwork slow) {
  NetworkDecision& decision = draft.decision;
  const int64_t efa = draft.count(NetworkKind::efa);
  const int64_t infiniband = draft.count(NetworkKind::infiniband);
  const int64_t roce = draft.count(NetworkKind::roce);
  decision.has_fast_network = efa + infiniband > 0;
  const Obstacle efa_obstacle = efa > 0 ? obstacle_to_efa(draft) : Obstacle{};
  const Obstacle ib_obstacle = infiniband + roce > 0 ? obstacle_to_infiniband(draft) : Obstacle{};
  for (const RdmaDevice& device : draft.report.rdma) {
    if (!device.is_active) draft.warn(fmt::format("{} has no link and is not used", device.name));
  }
  if (efa > 0 && efa_obstacle.why.empty()) {
    decision.expected = NetworkKind::efa;
  } else if (infiniband + roce > 0 && ib_obstacle.why.empty()) {
    decision.expected = infiniband > 0 ? NetworkKind::infiniband : NetworkKind::roce;
  } else {
    decision.expected = NetworkKind::tcp;
    if (efa + infiniband + roce == 0) return;
    const Obstacle& obstacle = efa > 0 ? efa_obstacle : ib_obstacle;
    const NetworkKind kind = efa > 0          ? NetworkKind::efa
                             : infiniband > 0 ? NetworkKind::infiniband
                                              : NetworkKind::roce;
    const std::string text =
        fmt::format("{} is there ({} device{}), but NCCL would use TCP: {}; {}", name_of(kind),
                    draft.count(kind), draft.count(kind) == 1 ? "" : "s", obstacle.why, obstacle.fix);
    if (!decision.has_fast_network || slow == SlowNetwork::allowed) {
      draft.warn(text);
    } else {
      decision.refusal = text + ", or accept the slow network with parallel.allow_slow_network: true";
    }
  }
}

/// For aws-ofi-nccl as it was before it found EFA and its RDMA by itself.
void settings_of_old_efa(Draft& draft) {
  const NetworkReport& report = draft.report;
  const std::string plugin = "aws-ofi-nccl " + to_string(report.plugin);
  if (is_older(report.plugin, first_plugin_that_finds_efa)) {
    draft.set("FI_PROVIDER", "efa", plugin + " does not choose EFA by itself");
    draft.set("NCCL_PROTO", "simple", plugin + " does not keep the order that LL and LL128 need");
  }
  const bool is_rdma_off = is_older(report.plugin, first_plugin_with_rdma_on) ||
                           is_older(report.libfabric, first_libfabric_with_rdma_on);
  if (is_rdma_off && draft.has_efa_rdma()) {
    draft.set("FI_EFA_USE_DEVICE_RDMA", "1",
              fmt::format("{} with libfabric {} leaves RDMA off", plugin, to_string(report.libfabric)));
  }
}

void settings_of_efa(Draft& draft) {
  const NetworkReport& report = draft.report;
  settings_of_old_efa(draft);
  if (is_older(report.kernel, first_fork_safe_kernel)) {
    draft.set("FI_EFA_FORK_SAFE", "1",
              fmt::format("kernel {} copies registered pages at a fork", to_string(report.kernel)));
  }
  if (!report.is_plugin_on_search_path) {
    draft.set("NCCL_NET_PLUGIN", report.plugin_path, "the plugin is outside of the library search path");
  }
  const bool is_recent = !is_older(report.plugin, first_plugin_with_rdma_on) &&
                         !is_older(report.libfabric, first_libfabric_with_rdma_on);
  if (is_recent) {
    if (!report.tuner_path.empty())
      draft.set("NCCL_TUNER_PLUGIN", report.tuner_path, "algorithms and protocols tuned for EFA");
    draft.set("NCCL_BUFFSIZE", "8388608", "AWS's own setting for EFA");
    draft.set("NCCL_P2P_NET_CHUNKSIZE", "524288", "AWS's own setting for EFA");
  }
  if (!draft.is_instance({"p5", "p5e", "p5en"})) return;
  if (is_older(report.plugin, first_plugin_for_p5)) {
    draft.warn(fmt::format("{} needs aws-ofi-nccl {} or later, {} was found; run a newer EFA installer",
                           report.instance_kind, to_string(first_plugin_for_p5), to_string(report.plugin)));
  }
  if (report.nccl < first_nccl_for_p5) {
    draft.warn(fmt::format("{} needs NCCL {} or later, {} was found", report.instance_kind,
                           to_string(first_nccl_for_p5), to_string(report.nccl)));
  }
}

/// InfiniBand and RoCE: NCCL's own choices, but for what it cannot find.
void settings_of_verbs(Draft& draft) {
  for (const RdmaDevice& device : draft.report.rdma) {
    if (!device.is_active || device.kind != draft.decision.expected) continue;
    if (device.kind == NetworkKind::roce && draft.report.nccl < first_nccl_that_finds_gids &&
        device.roce_v2_gid >= 0) {
      draft.set("NCCL_IB_GID_INDEX", std::to_string(device.roce_v2_gid),
                fmt::format("the RoCE v2 address of {}, which NCCL {} does not look for", device.name,
                            to_string(draft.report.nccl)));
    }
    if (draft.user("NCCL_IB_TC") == nullptr) draft.decision.nccl.traffic_class = device.traffic_class;
    return;  // of the first device in use: the settings hold for all
  }
}

bool is_made_by_software(std::string_view name) {
  constexpr std::string_view prefixes[] = {"lo",      "docker", "veth", "br-",  "virbr", "cni",
                                           "flannel", "cali",   "tun",  "tap",  "wg",    "dummy",
                                           "podman",  "ifb",    "kube", "vxlan"};
  return std::ranges::any_of(prefixes, [&](std::string_view prefix) { return name.starts_with(prefix); });
}

/// The fastest interface with hardware behind it, then the one of the default route, then by name.
const NetworkInterface* best_interface(const NetworkReport& report) {
  const NetworkInterface* best = nullptr;
  const auto is_better = [](const NetworkInterface& a, const NetworkInterface& b) {
    if (a.is_physical != b.is_physical) return a.is_physical;
    if (a.mbit_per_s != b.mbit_per_s) return a.mbit_per_s > b.mbit_per_s;
    if (a.has_default_route != b.has_default_route) return a.has_default_route;
    return a.name < b.name;
  };
  for (const NetworkInterface& one : report.interfaces) {
    if (!one.is_up || is_made_by_software(one.name)) continue;
    if (best == nullptr || is_better(one, *best)) best = &one;
  }
  return best;
}

std::string names_of(std::span<const NetworkInterface> interfaces) {
  std::string names;
  for (const NetworkInterface& one : interfaces) names += (names.empty() ? "" : ", ") + one.name;
  return names;
}

void choose_interface(Draft& draft) {
  if (const std::string* chosen = draft.user("NCCL_SOCKET_IFNAME")) {
    const std::string_view name = std::string_view(*chosen).substr(chosen->starts_with('=') ? 1 : 0);
    const bool is_one_name = !name.empty() && name.find_first_of("^,") == std::string_view::npos;
    const bool is_there = std::ranges::any_of(
        draft.report.interfaces, [&](const NetworkInterface& one) { return one.name.starts_with(name); });
    if (is_one_name && !is_there && !draft.report.interfaces.empty())
      draft.warn(
          fmt::format("NCCL_SOCKET_IFNAME={} names no interface of this host; unset it, or name one of {}",
                      *chosen, names_of(draft.report.interfaces)));
    return;
  }
  const NetworkInterface* best = best_interface(draft.report);
  if (best == nullptr) {
    draft.warn("no network interface was found that other hosts could reach; set NCCL_SOCKET_IFNAME");
    return;
  }
  // The equals sign takes the name whole: without it eth1 would also be eth10.
  draft.set("NCCL_SOCKET_IFNAME", "=" + best->name,
            best->mbit_per_s > 0
                ? fmt::format("the fastest interface with a link, {} Mbit/s", best->mbit_per_s)
                : std::string("the interface with a link"));
}

/// Old variables that meet new software, and values that make it slow.
void judge_users_variables(Draft& draft) {
  const NetworkReport& report = draft.report;
  const bool is_efa = draft.decision.expected == NetworkKind::efa;
  const std::string plugin = "aws-ofi-nccl " + to_string(report.plugin);
  if (is_efa && !is_older(report.plugin, first_plugin_that_finds_efa)) {
    if (const std::string* protocol = draft.user("NCCL_PROTO"); protocol && lower(*protocol) == "simple") {
      draft.warn(
          fmt::format("NCCL_PROTO={} was for aws-ofi-nccl 1.5 and earlier; with {} it blocks LL, LL128 and "
                      "the tuner; unset it",
                      *protocol, plugin));
    }
    if (draft.user("FI_PROVIDER")) {
      draft.warn(fmt::format(
          "FI_PROVIDER was for aws-ofi-nccl 1.5 and earlier; {} finds EFA itself; unset it", plugin));
    }
  }
  if (const std::string* rdma = draft.user("FI_EFA_USE_DEVICE_RDMA"); is_efa && rdma) {
    const bool is_on = number_or(rdma, 0) != 0;
    if (is_on && draft.is_instance({"p3dn", "g4dn", "g5"})) {
      draft.warn(fmt::format("FI_EFA_USE_DEVICE_RDMA={} is for p4 and p5; {} has EFA without RDMA; unset it",
                             *rdma, report.instance_kind));
    } else if (!is_on && draft.has_efa_rdma()) {
      draft.warn(fmt::format(
          "FI_EFA_USE_DEVICE_RDMA={} turns off the RDMA of {}, which is 2-3 times as fast; unset it", *rdma,
          report.instance_kind));
    }
  }
  if (draft.user("FI_EFA_FORK_SAFE") && is_efa && report.kernel >= first_fork_safe_kernel) {
    draft.warn(
        fmt::format("FI_EFA_FORK_SAFE is not needed with kernel {}; unset it", to_string(report.kernel)));
  }
  if (draft.user("RDMAV_FORK_SAFE") && is_efa) {
    draft.warn("RDMAV_FORK_SAFE is not for EFA and harms newer kernels; unset it");
  }
}

void choose_connections(Draft& draft) {
  const int wanted = std::min(draft.report.streams, most_connections);
  if (const std::string* own = draft.user("CUDA_DEVICE_MAX_CONNECTIONS")) {
    if (number_or(own, default_connections) < wanted) {
      draft.warn(
          fmt::format("CUDA_DEVICE_MAX_CONNECTIONS={} is less than the {} streams of a rank, which then wait "
                      "for each other and may hang; set it to {} or unset it",
                      *own, draft.report.streams, wanted));
    }
    return;
  }
  if (wanted > default_connections) {
    draft.set("CUDA_DEVICE_MAX_CONNECTIONS", std::to_string(wanted),
              fmt::format("{} streams of a rank, each with a queue of its own", draft.report.streams));
  }
}

void choose_log(Draft& draft) {
  const bool is_users = draft.user("NCCL_DEBUG") || draft.user("NCCL_DEBUG_FILE");
  if (draft.report.nccl_log.empty() || is_users) return;
  const char* why = "so that the banner can say which network NCCL took";
  draft.set("NCCL_DEBUG", "INFO", why);
  draft.set("NCCL_DEBUG_SUBSYS", "INIT,NET", why);
  draft.set("NCCL_DEBUG_FILE", draft.report.nccl_log, why);
}

void share_devices(Draft& draft) {
  if (!draft.report.shares_devices) return;
  if (draft.report.nccl >= first_nccl_with_shared_gpus) {
    draft.set("NCCL_MULTI_RANK_GPU_ENABLE", "1", "several ranks use one GPU (parallel.share_devices)");
  } else {
    draft.warn(fmt::format(
        "several ranks use one GPU (parallel.share_devices), which NCCL {} refuses; it can from {} on",
        to_string(draft.report.nccl), to_string(first_nccl_with_shared_gpus)));
  }
}

}  // namespace

std::span<const char* const> watched_variables() {
  return watched;
}

NetworkDecision decide_network(const NetworkReport& report, SlowNetwork slow) {
  Draft draft{report, {}};
  choose_connections(draft);
  if (!report.nccl.is_known()) return std::move(draft.decision);  // device tensors go through MPI
  share_devices(draft);
  choose_log(draft);
  if (report.hosts > 1) {
    expect_network(draft, slow);
    if (draft.decision.expected == NetworkKind::efa) settings_of_efa(draft);
    settings_of_verbs(draft);
    judge_users_variables(draft);
    choose_interface(draft);
    // Between hosts a lane needs more than one block a side to fill a fast link.
    if (draft.decision.expected != NetworkKind::tcp) draft.decision.nccl.lane_max_ctas = 4;
  }
  int64_t& buffer_bytes = draft.decision.nccl.buffer_bytes;
  for (const EnvironmentSetting& setting : draft.decision.settings) {
    if (setting.name == "NCCL_BUFFSIZE") buffer_bytes = number_or(&setting.value, buffer_bytes);
  }
  buffer_bytes = number_or(draft.user("NCCL_BUFFSIZE"), buffer_bytes);
  return std::move(draft.decision);
}

}  // namespace ptrain
