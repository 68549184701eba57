// The one owner of C handles: destroys what it holds, moves, does not copy.
#pragma once

#include <utility>

namespace ptrain {

/// Raw is a pointer type; Destroy a noexcept function of it.
template <class Raw, auto Destroy>
class Handle {
 public:
  Handle() = default;
  explicit Handle(Raw raw) : raw_(raw) {}
  Handle(Handle&& other) noexcept : raw_(std::exchange(other.raw_, Raw{})) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~Handle() {
    if (raw_ != Raw{}) Destroy(raw_);
  }

  Raw get() const { return raw_; }
  explicit operator bool() const { return raw_ != Raw{}; }

 private:
  Raw raw_{};
};

}  // namespace ptrain
