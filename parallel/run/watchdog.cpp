#include "parallel/run/watchdog.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <sstream>

#include "kernels/base/clock.h"
#include "kernels/base/error.h"
#include "parallel/comm/host_objects.h"

namespace ptrain {
namespace {

WatchKey draw_key() {
  std::random_device random;
  WatchKey key;
  for (uint64_t& word : key) word = uint64_t{random()} << 32 | random();
  return key;
}

/// The rest of the program handles signals on the main thread.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

Watchdog::Watchdog(Communicator& world, const std::vector<std::string>& hosts, const OpRing& ring,
                   WatchdogOptions options)
    : ring_(ring), options_(std::move(options)), events_(options_.events), rank_(world.rank()) {
  events_.note_slow = [this](const SlowRank& slow) {
    const std::lock_guard lock(mutex_);
    slow_ranks_.push_back(slow);
    has_news_ = true;
  };
  events_.look_at = [this](int rank) -> std::optional<OpSnapshot> {
    const auto found = neighbours_.find(rank);
    if (found == neighbours_.end()) return std::nullopt;
    return found->second.ring()->snapshot();
  };
  exchange(world, hosts);
  wake_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  check(wake_ >= 0, ExitCode::resources, "no eventfd for the watch over hangs: {}", std::strerror(errno));
  {
    const SignalsBlocked blocked;
    thread_ = std::thread([this] { watch(); });
  }
  try {
    connect_all(world, options_.connect_s);
  } catch (...) {
    stop();
    throw;
  }
}

Watchdog::~Watchdog() {
  stop();
}

void Watchdog::stop() {
  is_stopping_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof one);
  if (thread_.joinable()) thread_.join();
  ::close(wake_);
}

/// Who stands by where, and the key of this run.
void Watchdog::exchange(Communicator& world, const std::vector<std::string>& hosts) {
  plan_ = {.size = world.size(),
           .hosts = hosts,
           .timeout_s = options_.timeout_s,
           .interval_s = interval_of(options_.timeout_s)};
  plan_.hosts.resize(static_cast<size_t>(world.size()), hosts.empty() ? "this host" : hosts.front());
  if (rank_ == 0) plan_.key = draw_key();
  static_assert(sizeof plan_.key == 2 * sizeof(int64_t));
  world.broadcast(Tensor(plan_.key.data(), {2}, DType::i64), 0);
  const std::vector<int> deputies = deputies_of(plan_.hosts);
  std::string mine;
  if (std::ranges::count(deputies, rank_) > 0 && world.size() > 1) {
    if (rank_ == 0) allow_open_files(world.size() + 256);
    listener_ = WatchListener::open();
    mine = std::to_string(listener_.port());
    for (const std::string& address : own_addresses()) mine += " " + address;
  }
  const std::vector<std::string> rings = all_gather_text(world, options_.ring_address);
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto r = static_cast<size_t>(rank);
    if (rank == rank_ || plan_.hosts[r] != plan_.hosts[static_cast<size_t>(rank_)]) continue;
    RingMemory memory = open_ring(rings[r]);
    if (memory.data() != nullptr) neighbours_.emplace(rank, std::move(memory));
  }
  const std::vector<std::string> all = all_gather_text(world, mine);
  for (const int rank : deputies) {
    WatchPlan::Deputy deputy{.rank = rank, .port = 0, .addresses = {}};
    std::istringstream words(all[static_cast<size_t>(rank)]);
    words >> deputy.port;
    for (std::string address; words >> address;) deputy.addresses.push_back(address);
    plan_.deputies.push_back(std::move(deputy));
  }
}

void Watchdog::connect_all(Communicator& world, double connect_s) {
  const double until_s = now_s() + connect_s;
  while (!is_connected_ && now_s() < until_s) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::string missing;
  if (!is_connected_) {
    const std::lock_guard lock(mutex_);
    missing = fmt::format("rank {} on {} does not reach rank 0 on {}: tried {}", rank_,
                          plan_.hosts[static_cast<size_t>(rank_)], plan_.hosts[0], tried_);
  }
  for (const std::string& text : all_gather_text(world, missing)) {
    if (!text.empty() && fault_.empty()) fault_ = text;
  }
  is_armed_ = fault_.empty();
}

// --- The thread --------------------------------------------------------------------------------------------

/// Seconds that go on while this process runs: where it was stopped, or the host slept, all of the time that
/// nobody could answer counts as a second at most.
double Watchdog::awake_s() {
  const double clock_s = now_s();
  if (clock_s_ >= 0) awake_s_ += std::min(clock_s - clock_s_, 1.0);
  clock_s_ = clock_s;
  return awake_s_;
}

WatchState Watchdog::own_state(double now_s) {
  const uint64_t progress = ring_.progress();
  if (progress != progress_) progress_s_ = now_s;
  progress_ = progress;
  WatchState state{.rank = rank_, .stalled_s = now_s - progress_s_, .time = {}, .ops = ring_.snapshot()};
  const std::lock_guard lock(mutex_);
  state.time = time_;
  return state;
}

void Watchdog::watch() {
  const double now_s = awake_s();
  if (rank_ == 0) {
    chief_.emplace(plan_, rank_, events_, now_s);
    is_connected_ = true;
  } else {
    member_.emplace(plan_, rank_, events_, now_s);
  }
  while (!is_stopping_) {
    const bool is_frozen = options_.is_frozen != nullptr && *options_.is_frozen;
    const double turn_s = awake_s();
    if (!is_frozen) turn(turn_s);
    sleep();
  }
  if (options_.is_frozen != nullptr && *options_.is_frozen) return;
  if (chief_) chief_->say_goodbye();
  if (member_) member_->say_goodbye();
}

void Watchdog::turn(double now_s) {
  const WatchState own = own_state(now_s);
  if (listener_.socket() >= 0) {
    // A rank that stands by hears from others only once it has noticed for itself that the chief is lost.
    for (int i = 0; chief_ && i < plan_.size + 64; ++i) {
      WatchLink link = listener_.accept();
      if (!link.is_open()) break;
      chief_->take(std::move(link), now_s);
    }
  }
  if (chief_) return chief_->run(own, now_s, is_armed_);
  member_->run(own, now_s);
  if (member_->is_connected() && !is_connected_) is_connected_ = true;
  if (!is_connected_) {
    const std::lock_guard lock(mutex_);
    tried_ = member_->tried();
  }
  if (!member_->must_succeed() || !is_armed_) return;
  chief_.emplace(plan_, rank_, events_, now_s);
  chief_->succeed(member_->lost_chief(), member_->chief_state(), member_->silent_s(now_s), now_s);
  member_.reset();
}

/// Until something comes or it is time to tell: one wake-up for all that ranks send in half an interval.
void Watchdog::sleep() {
  std::vector<pollfd> sockets = {{.fd = wake_, .events = POLLIN, .revents = 0}};
  const auto add = [&](int socket) {
    if (socket >= 0) sockets.push_back({.fd = socket, .events = POLLIN, .revents = 0});
  };
  bool is_urgent = !is_armed_;
  if (member_) {
    add(member_->socket());
    is_urgent = is_urgent || member_->is_urgent();
  }
  if (chief_ && chief_->is_urgent()) is_urgent = true;
  const double sleep_s = is_urgent ? 0.01 : plan_.interval_s / 2;
  ::poll(sockets.data(), sockets.size(), static_cast<int>(1000 * sleep_s));
}

// --- Other threads -----------------------------------------------------------------------------------------

void Watchdog::note_step(double computed_s) {
  const std::lock_guard lock(mutex_);
  step_times_.add(computed_s);
  time_.steps = step_times_.steps();
  // Once a window, which is all that is looked at.
  if (time_.steps % slow_rank_window == 0) time_.median_s = step_times_.median_s();
}

void Watchdog::set_peers(int stage, double weight) {
  const std::lock_guard lock(mutex_);
  time_.stage = stage;
  time_.weight = weight;
}

std::vector<SlowRank> Watchdog::new_slow_ranks() {
  if (!has_news_) return {};
  const std::lock_guard lock(mutex_);
  has_news_ = false;
  return std::exchange(slow_ranks_, {});
}

}  // namespace ptrain
