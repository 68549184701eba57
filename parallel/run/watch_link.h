// Small frames between the watchdogs of ranks, over TCP sockets of their own: no MPI, nothing blocks. Not for
// what the frames mean (watchdog) nor for data of a run (parallel/comm).
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace ptrain {

/// Bytes that are written and read in the same order, by ranks of one program.
class FrameWriter {
 public:
  template <class T>
  FrameWriter& put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof value);
    std::memcpy(bytes_.data() + at, &value, sizeof value);
    return *this;
  }
  template <class T>
  FrameWriter& put_all(std::span<const T> values) {
    put(static_cast<uint32_t>(values.size()));
    for (const T& value : values) put(value);
    return *this;
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

/// Reads nothing but zeros, and is no longer good, once the bytes do not last.
class FrameReader {
 public:
  explicit FrameReader(std::span<const char> bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    is_good_ = is_good_ && bytes_.size() >= sizeof value;
    if (!is_good_) return value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_ = bytes_.subspan(sizeof value);
    return value;
  }
  template <class T>
  std::vector<T> get_all(uint32_t most) {
    const auto count = get<uint32_t>();
    is_good_ = is_good_ && count <= most && bytes_.size() >= count * sizeof(T);
    std::vector<T> values;
    for (uint32_t i = 0; is_good_ && i < count; ++i) values.push_back(get<T>());
    return values;
  }
  bool is_good() const { return is_good_; }

 private:
  std::span<const char> bytes_;
  bool is_good_ = true;
};

struct Frame {
  uint32_t kind = 0;
  std::vector<char> body;
};

/// One connection. Never blocks and never throws: what goes wrong closes it.
class WatchLink {
 public:
  WatchLink() = default;
  explicit WatchLink(int socket);
  WatchLink(WatchLink&& other) noexcept;
  WatchLink& operator=(WatchLink&& other) noexcept;
  ~WatchLink() { close(); }

  /// Sets out to `address` ("10.0.0.3" or "fe80::1%eth0"); whether it came about shows later.
  static WatchLink connect(const std::string& address, int port);

  bool is_open() const { return socket_ >= 0; }
  int socket() const { return socket_; }
  bool wants_to_write() const { return is_open() && !out_.empty(); }
  void send(uint32_t kind, const FrameWriter& body = {});
  /// Moves what can be moved.
  void pump();
  /// The next frame that has come whole.
  std::optional<Frame> next();
  void close();

 private:
  int socket_ = -1;
  std::vector<char> in_, out_;
};

/// Where other ranks can connect to.
class WatchListener {
 public:
  WatchListener() = default;
  WatchListener(WatchListener&& other) noexcept;
  WatchListener& operator=(WatchListener&& other) noexcept;
  ~WatchListener();
  /// On all addresses of this host, on a port that the system picks. Errors (resources): no socket is to be
  /// had.
  static WatchListener open();

  int socket() const { return socket_; }
  int port() const;
  /// An unopened link where nobody is waiting.
  WatchLink accept();

 private:
  int socket_ = -1;
};

/// The addresses of this host's interfaces that are up, loopback first: "127.0.0.1", "10.0.0.3", …
std::vector<std::string> own_addresses();
/// As many open files as this process may have, if it may have fewer than `files` now.
void allow_open_files(int64_t files);

}  // namespace ptrain
