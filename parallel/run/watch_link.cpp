#include "parallel/run/watch_link.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "kernels/base/error.h"

namespace ptrain {
namespace {

constexpr uint32_t magic = 0x70747264;  // who speaks something else is no watchdog
constexpr uint32_t most_bytes = 1 << 20;

struct Header {
  uint32_t magic, kind, bytes;
};

void set_no_delay(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

bool will_pass() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOTCONN || errno == EALREADY;
}

}  // namespace

WatchLink::WatchLink(int socket) : socket_(socket) {
  if (socket_ >= 0) set_no_delay(socket_);
}
WatchLink::WatchLink(WatchLink&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), in_(std::move(other.in_)), out_(std::move(other.out_)) {}
WatchLink& WatchLink::operator=(WatchLink&& other) noexcept {
  std::swap(socket_, other.socket_);
  std::swap(in_, other.in_);
  std::swap(out_, other.out_);
  return *this;
}

void WatchLink::close() {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

WatchLink WatchLink::connect(const std::string& address, int port) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &wanted, &found) != 0) return {};
  const int socket = ::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  WatchLink link(socket);
  const bool is_refused = socket < 0 || (::connect(socket, found->ai_addr, found->ai_addrlen) != 0 &&
                                         errno != EINPROGRESS && errno != EINTR);
  ::freeaddrinfo(found);
  if (is_refused) link.close();
  return link;
}

void WatchLink::send(uint32_t kind, const FrameWriter& body) {
  if (!is_open()) return;
  const Header header{magic, kind, static_cast<uint32_t>(body.bytes().size())};
  const auto* bytes = reinterpret_cast<const char*>(&header);
  out_.insert(out_.end(), bytes, bytes + sizeof header);
  out_.insert(out_.end(), body.bytes().begin(), body.bytes().end());
  // Who does not read for so long is not there.
  if (out_.size() > most_bytes) close();
}

void WatchLink::pump() {
  while (is_open() && !out_.empty()) {
    const ssize_t sent = ::send(socket_, out_.data(), out_.size(), MSG_NOSIGNAL);
    if (sent < 0 && will_pass()) break;
    if (sent <= 0) return close();
    out_.erase(out_.begin(), out_.begin() + sent);
  }
  char buffer[16384];
  while (is_open()) {
    const ssize_t came = ::recv(socket_, buffer, sizeof buffer, 0);
    if (came < 0 && will_pass()) break;
    if (came <= 0) return close();
    in_.insert(in_.end(), buffer, buffer + came);
    if (in_.size() > 2 * most_bytes) return close();
  }
}

std::optional<Frame> WatchLink::next() {
  Header header;
  if (in_.size() < sizeof header) return {};
  std::memcpy(&header, in_.data(), sizeof header);
  if (header.magic != magic || header.bytes > most_bytes) {
    close();
    in_.clear();
    return {};
  }
  if (in_.size() < sizeof header + header.bytes) return {};
  const auto body = in_.begin() + sizeof header;
  Frame frame{header.kind, {body, body + header.bytes}};
  in_.erase(in_.begin(), body + header.bytes);
  return frame;
}

WatchListener::WatchListener(WatchListener&& other) noexcept : socket_(std::exchange(other.socket_, -1)) {}
WatchListener& WatchListener::operator=(WatchListener&& other) noexcept {
  std::swap(socket_, other.socket_);
  return *this;
}
WatchListener::~WatchListener() {
  if (socket_ >= 0) ::close(socket_);
}

WatchListener WatchListener::open() {
  // One socket for both families; where the host has no IPv6, one for IPv4.
  for (const int family : {AF_INET6, AF_INET}) {
    WatchListener listener;
    listener.socket_ = ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener.socket_ < 0) continue;
    const int off = 0;
    if (family == AF_INET6) ::setsockopt(listener.socket_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    sockaddr_storage any{};
    any.ss_family = static_cast<sa_family_t>(family);
    const socklen_t length = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    if (::bind(listener.socket_, reinterpret_cast<sockaddr*>(&any), length) == 0 &&
        ::listen(listener.socket_, SOMAXCONN) == 0)
      return listener;
  }
  fail(ExitCode::resources,
       "train.hang_timeout_s: no TCP port can be listened on for the watch over hangs: {}; set it to 0 to go "
       "without",
       std::strerror(errno));
}

int WatchListener::port() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length);
  const in_port_t port = address.ss_family == AF_INET6
                             ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                             : reinterpret_cast<const sockaddr_in*>(&address)->sin_port;
  return ntohs(port);
}

WatchLink WatchListener::accept() {
  return WatchLink(::accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

std::vector<std::string> own_addresses() {
  std::vector<std::string> addresses = {"127.0.0.1"};
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return addresses;
  // IPv4 before IPv6: most clusters route the former.
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
      const bool is_up = (at->ifa_flags & IFF_UP) != 0 && (at->ifa_flags & IFF_LOOPBACK) == 0;
      if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != family || !is_up) continue;
      // A link-local address means nothing to another host without the name of its interface there.
      if (family == AF_INET6 &&
          IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<const sockaddr_in6*>(at->ifa_addr)->sin6_addr))
        continue;
      char text[NI_MAXHOST];
      const socklen_t length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
      if (::getnameinfo(at->ifa_addr, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
        addresses.emplace_back(text);
    }
  }
  ::freeifaddrs(first);
  return addresses;
}

void allow_open_files(int64_t files) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= static_cast<rlim_t>(files)) return;
  limit.rlim_cur = std::min(static_cast<rlim_t>(files), limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace ptrain
